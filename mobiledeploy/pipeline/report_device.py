"""Report a device's first run: what it is, what ran on it, and whether the outputs were right."""

from __future__ import annotations

import getpass
import re
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mobiledeploy.bench.device_report import (
    DeviceReport,
    ReportedDevice,
    ReportedFailure,
    ReportedRun,
    ReportedRunner,
)
from mobiledeploy.bench.measure import measure
from mobiledeploy.devices.agent.machine import PROTOCOL
from mobiledeploy.devices.cores import Cores, clusters, named_cores
from mobiledeploy.devices.native.bundle import runner_key
from mobiledeploy.devices.native.setup import self_test
from mobiledeploy.errors import MobileDeployError
from mobiledeploy.pipeline.build import build, load_images
from mobiledeploy.pipeline.deploy import deploy
from mobiledeploy.stages import RECIPES
from mobiledeploy.utils.files import removed_when_done

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mobiledeploy.devices.python_device import PythonDevice

FAMILY = "v2"
WARMUP = 3
_IPV4_OR_6 = r"\b\d{1,3}(?:\.\d{1,3}){3}\b|(?:\b[0-9a-fA-F]{1,4}|:)(?::[0-9a-fA-F]{0,4}){2,7}"
_HIDDEN = "..."


def report_device(
    device: PythonDevice, artifacts: Sequence[Path], *, runs: int, version: str
) -> tuple[DeviceReport, MobileDeployError | None]:
    """Describe a device, test its native runner, and time artifacts there on one thread.

    Args:
        device: From `open_device` with the native runner, entered.
        artifacts: `.onnx` and `.pte` files; none for a MobileNetV2 with random weights.
        runs: Inferences of each artifact to time, on each kind of cores.
        version: Of mobiledeploy.

    Returns:
        The report, and the error that ended it early, if one did.
    """
    report = DeviceReport(created=datetime.now(UTC).date().isoformat(), mobiledeploy=version)
    error = None
    try:
        for part in _parts(device, artifacts, runs):
            report = report.model_copy(update=part)
    except MobileDeployError as caught:
        error = caught
        failure = ReportedFailure(
            error=type(caught).__name__, message=anonymous(caught.message, device.uri)
        )
        report = report.model_copy(update={"failure": failure})
    return report, error


def anonymous(message: str, uri: str) -> str:
    """Return an error's own words without names, addresses, and the output of other programs."""
    own = message.partition(" Last output:")[0].replace(uri, "the device")
    parts = urlsplit(uri)
    names = (parts.netloc, parts.hostname, parts.username, str(Path.home()), getpass.getuser())
    for name in sorted(filter(None, names), key=len, reverse=True):
        own = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", _HIDDEN, own)
    return re.sub(_IPV4_OR_6, _HIDDEN, own)


def _parts(device: PythonDevice, artifacts: Sequence[Path], runs: int) -> Iterator[dict[str, Any]]:
    """Yield the report's fields as they become known."""
    yield {"device": ReportedDevice.of(device.host)}
    runtimes = tuple(self_test(device))
    runner = ReportedRunner(
        version=runner_key(),
        sha256=device.runner_sha256(),
        protocol=PROTOCOL,
        runtimes=runtimes,
    )
    yield {"runner": runner}
    done: list[ReportedRun] = []
    differ = len(clusters(device.host.core_mhz)) > 1
    with _files(artifacts) as files:
        for cores in (Cores.BIG, Cores.LITTLE) if differ else (Cores.ALL,):
            affinity = named_cores(device.host, cores)
            found = measure(files, device=device, runs=runs, warmup=WARMUP, affinity=affinity)
            done += [ReportedRun.of(each, cores) for each in found]
            yield {"runs": tuple(done)}


@contextmanager
def _files(artifacts: Sequence[Path]) -> Iterator[Sequence[Path]]:
    """Provide the artifacts, or a full-size MobileNetV2 in both formats."""
    if artifacts:
        yield artifacts
        return
    with removed_when_done("mobiledeploy-") as folder:
        model = build(FAMILY, weights="random")
        deployed = deploy(
            model,
            formats=("onnx", "pte"),
            calibration=load_images(model, None),
            recipe=RECIPES["fast"],
            out=folder,
            parity=False,
        )
        yield [each.path for each in deployed.artifacts]
