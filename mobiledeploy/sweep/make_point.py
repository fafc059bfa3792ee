"""Make one point: export it and count its accuracy.

Input: a point and a `Plan`. Output: its `Result`, without latencies. Each step is a `mobiledeploy`
command.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobiledeploy.errors import MobileDeployError
from mobiledeploy.models.code_spec import is_code
from mobiledeploy.sweep.commands import InterruptedCommandError
from mobiledeploy.sweep.points import digest_of_images
from mobiledeploy.sweep.prune import all_missed, macs_missed
from mobiledeploy.sweep.store import MeasuredArtifact, Result

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mobiledeploy.sweep.commands import Commands
    from mobiledeploy.sweep.pick import Budget
    from mobiledeploy.sweep.points import Point

_VERSIONS = ("mobiledeploy", "torch", "torchao", "executorch", "onnxruntime", "ai-edge-litert")
_NAMED = re.compile(r"([\w-]+)=(.+)", re.DOTALL)


def versions() -> dict[str, str]:
    """Return the versions of all packages that a result depends on."""
    return {name: version(name) for name in _VERSIONS}


@dataclass(frozen=True, slots=True)
class DeviceName:
    """A device of a sweep.

    Attributes:
        text: As it was given: a URI, or NAME=URI.
    """

    text: str

    @property
    def name(self) -> str:
        """Return the name; empty without one. It is a custom resource of a cluster."""
        found = _NAMED.fullmatch(self.text)
        return found[1] if found else ""

    @property
    def uri(self) -> str:
        """Return the URI, as `bench --device` takes it."""
        found = _NAMED.fullmatch(self.text)
        return found[2] if found else self.text

    @property
    def counts(self) -> bool:
        """Return whether instructions can be counted there: where QEMU runs through exec."""
        return self.uri.startswith("exec:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is done with every point.

    Attributes:
        formats: Formats to export to.
        out: Folder of the artifacts.
        calib_data: Calibration images; None for the bundled ones.
        data: Labelled images to count accuracy on; None for none.
        samples: Number of them; None for all.
        devices: Where latency is measured: URIs, or NAME=URI.
        runs: Measured inferences per artifact.
        counting: Whether instructions are counted in place of time on devices that can.
        jobs: Exports at the same time.
        budget: What makes it pointless to go on with a point.
    """

    formats: tuple[str, ...]
    out: Path
    calib_data: Path | None
    data: Path | None
    samples: int | None
    devices: tuple[str, ...]
    runs: int
    jobs: int
    budget: Budget
    counting: bool = False

    @property
    def threads(self) -> int:
        """Return the number of threads of each export."""
        return max(1, (os.cpu_count() or 1) // self.jobs)

    def context(self) -> dict[str, object]:
        """Return what all points share and their results depend on."""
        counted = {"counted": True} if self.counting else {}  # else as before there was a choice
        return counted | {
            "formats": sorted(self.formats),
            "calibration": digest_of_images(self.calib_data),
            "data": digest_of_images(self.data),
            "samples": self.samples,
            "devices": sorted(self.devices),
            "runs": self.runs,
            "versions": versions(),
        }

    def folder(self, point: Point, identity: str) -> Path:
        """Return the folder of a point's artifacts."""
        return self.out / f"{point.model}-{point.ptq}-{identity[:8]}"


def make(point: Point, plan: Plan, identity: str, commands: Commands) -> Result:
    """Export a point into a folder of its own, and count its accuracy."""
    try:
        if missed := macs_missed(point, plan.budget):
            return Result(point=point, state="over budget", error=missed)
        artifacts = tuple(_exported(point, plan, plan.folder(point, identity), commands))
        if missed := all_missed(artifacts, plan.budget):
            return Result(point=point, state="over budget", error=missed, artifacts=artifacts)
        if plan.data is not None:
            artifacts = _with_accuracy(artifacts, plan, commands)
        return Result(point=point, state="exported", artifacts=artifacts)
    except MobileDeployError as error:
        return failed(point, error)


def failed(point: Point, error: MobileDeployError) -> Result:
    """Return the result of a point that failed, or that was interrupted."""
    if isinstance(error, InterruptedCommandError):
        return Result(point=point, state="interrupted", error=error.message)
    return Result(point=point, state="failed", error=error.message)


def _exported(
    point: Point, plan: Plan, folder: Path, commands: Commands
) -> Iterator[MeasuredArtifact]:
    arguments = ["export", *point.export_arguments(), "--out", str(folder), "--json"]
    for each in plan.formats:
        arguments += ["--format", each]
    if plan.calib_data is not None and point.ptq != "fp32":
        arguments += ["--calib-data", str(plan.calib_data)]
    # a user's code may leave anything in memory
    document = commands.run(arguments, threads=plan.threads, shared=not is_code(point.model))
    closeness = _closeness(document)
    for artifact in document["artifacts"]:
        name = artifact["path"].rpartition("/")[2]
        yield MeasuredArtifact(
            path=artifact["path"],
            sha256=artifact["sha256"],
            size_bytes=artifact["size_bytes"],
            macs=(artifact.get("coverage") or {}).get("macs"),
            **closeness.get(name, {}),
        )


def _closeness(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return SQNR and agreement against float by artifact."""
    found: dict[str, dict[str, Any]] = {}
    for rung in (document.get("parity") or {}).get("rungs", ()):
        for comparison in rung.get("comparisons", ()):
            if rung.get("artifact") and comparison["reference"] == "float":
                metrics = comparison["metrics"]
                found[rung["artifact"]] = {
                    name: metrics[key]
                    for name, key in (("sqnr_db", "sqnr_db"), ("agreement", "top1_agreement"))
                    if isinstance(metrics.get(key), float)
                }
    return found


def _with_accuracy(
    artifacts: Sequence[MeasuredArtifact], plan: Plan, commands: Commands
) -> tuple[MeasuredArtifact, ...]:
    """Count the accuracy of the first artifact: all formats give the same logits."""
    arguments = ["evaluate", artifacts[0].path, "--data", str(plan.data), "--json", "-"]
    arguments += [] if plan.samples is None else ["--samples", str(plan.samples)]
    document = commands.run(arguments, threads=1)
    top1 = document["networks"][0]["top1_accuracy"]
    return tuple(replace(artifact, top1=top1) for artifact in artifacts)
