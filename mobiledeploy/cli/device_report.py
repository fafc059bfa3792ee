"""`mobiledeploy device report`: one document about a device's first run, for the maintainers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mobiledeploy.cli.device_options import SET_UP_URI, TIMEOUT
from mobiledeploy.cli.figures import TitledRow, print_figures
from mobiledeploy.cli.output import console, print_result, reserve_stdout, write_json
from mobiledeploy.cli.progress import showing_progress
from mobiledeploy.errors import UsageError

if TYPE_CHECKING:
    from mobiledeploy.bench.device_report import DeviceReport


def report(
    uri: Annotated[str, SET_UP_URI],
    artifacts: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="ARTIFACT",
            help="Artifacts to run. [default: MobileNetV2 with random weights, as .onnx and .pte]",
            show_default=False,
        ),
    ] = None,
    *,
    json_path: Annotated[
        Path, typer.Option("--json", metavar="PATH", help="Where the report goes (- for stdout).")
    ] = Path("device-report.json"),
    runs: Annotated[
        int,
        typer.Option(
            "--runs", metavar="N", min=2, max=1_000_000, help="Measured inferences per artifact."
        ),
    ] = 50,
    timeout: Annotated[float, TIMEOUT] = 600,
) -> None:
    """Write a report of a device's first run.

    It describes the device, loads the runtimes, and measures latency and equality of outputs. Run
    `device setup` first. The report holds no serial number, user, host or address.
    """
    from mobiledeploy import __version__
    from mobiledeploy.devices.open import open_device
    from mobiledeploy.devices.python_device import PythonDevice
    from mobiledeploy.pipeline.report_device import report_device
    from mobiledeploy.utils.files import require_writable_files

    require_writable_files(json_path, read=artifacts or ())
    reserve_stdout(json_path)
    with showing_progress():
        device = open_device(uri, runner="native", timeout_s=timeout)
        if not isinstance(device, PythonDevice):
            raise UsageError(f"{uri} has no native runner.")
        with device:  # errors of connecting name serials and hosts, and there is nothing to report
            document, error = report_device(device, artifacts or (), runs=runs, version=__version__)
    write_json(json_path, document.model_dump(mode="json"), indent=1)
    _print(document)
    console().print(f"Wrote {json_path}. Read it before you send it.", soft_wrap=True)
    if error is not None:
        raise error


def _print(document: DeviceReport) -> None:
    if document.device is not None:
        print_result(f"{document.device.model}, {document.device.os}")
    rows = [
        TitledRow(
            title=run.artifact,
            details=(f"{run.runtime}, {run.cores} cores",),
            figures=(
                f"{run.median_ms:.2f}",
                f"{run.p90_ms:.2f}",
                f"{run.load_ms:.1f}",
                f"{run.outputs.differing} of {run.outputs.values}",
            ),
        )
        for run in document.runs
    ]
    if rows:
        print_figures(("median\nms", "p90\nms", "load\nms", "outputs\nthat differ"), rows)
