"""Make and measure the points of a sweep.

Input: points, and what to do with each. Output: their results, kept in a `Store` one by one. Each
step of a point is a `mobiledeploy` command in a process of its own: a crash costs one point, and
memory is returned. Exports run in parallel; latency is measured when nothing else runs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from importlib.metadata import version
from statistics import median
from typing import TYPE_CHECKING, Any

from mobiledeploy.errors import MobileDeployError, RuntimeFailedError
from mobiledeploy.sweep.points import digest_of_images
from mobiledeploy.sweep.store import MeasuredArtifact, Result
from mobiledeploy.utils.progress import track

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from mobiledeploy.sweep.pick import Budget
    from mobiledeploy.sweep.points import Point
    from mobiledeploy.sweep.store import Store

_VERSIONS = ("mobiledeploy", "torch", "torchao", "executorch", "onnxruntime", "ai-edge-litert")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is done with every point.

    Attributes:
        formats: Formats to export to.
        out: Folder of the artifacts.
        calib_data: Calibration images; None for the bundled ones.
        data: Labelled images to count accuracy on; None for none.
        samples: Number of them; None for all.
        devices: Where latency is measured, as `bench --device` takes it.
        runs: Measured inferences per artifact.
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

    def context(self) -> dict[str, object]:
        """Return what all points share and their results depend on."""
        return {
            "formats": sorted(self.formats),
            "calibration": digest_of_images(self.calib_data),
            "data": digest_of_images(self.data),
            "samples": self.samples,
            "devices": sorted(self.devices),
            "runs": self.runs,
            "versions": {name: version(name) for name in _VERSIONS},
        }


def run(points: Sequence[Point], plan: Plan, store: Store, *, retry: bool) -> list[Result]:
    """Make and measure all points that the store does not hold yet.

    Args:
        points: The points.
        plan: What is done with each.
        store: Keeps the results.
        retry: Whether to try failed points again.

    Returns:
        The results, in the order of the points.
    """
    context = plan.context()
    identities = [point.identity(context) for point in points]
    missing = {
        identity: point
        for identity, point in zip(identities, points, strict=True)
        if _is_missing(store.get(identity), plan.budget, retry=retry)
    }
    pool = ThreadPoolExecutor(plan.jobs)
    try:
        futures = {pool.submit(_make, point, plan, key): key for key, point in missing.items()}
        for future in track(as_completed(futures), "Exporting", len(futures)):
            store.put(futures[future], future.result())
    finally:  # after Ctrl-C the running exports get the same signal; the waiting ones never start
        pool.shutdown(cancel_futures=True)
    found = {identity: store.get(identity) for identity in identities}
    unmeasured = {
        key: result for key, result in found.items() if result and result.state == "exported"
    }
    for key, result in track(unmeasured.items(), "Measuring latency", len(unmeasured)):
        measured = _with_latency(result, plan)
        found[key] = measured
        store.put(key, measured)
    return [result for result in found.values() if result is not None]


def _is_missing(kept: Result | None, budget: Budget, *, retry: bool) -> bool:
    """Return whether a point is new, or was given up for a reason that no longer holds."""
    if kept is None:
        return True
    if kept.state == "over budget":
        return not (_too_many_macs(kept.point, budget) or _all_missed(kept.artifacts, budget))
    return retry and kept.state == "failed"


def _all_missed(artifacts: Sequence[MeasuredArtifact], budget: Budget) -> str:
    """Return what the first artifact misses; empty if there are none, or one keeps the budget."""
    missed = [budget.missed(artifact) for artifact in artifacts]
    return missed[0] if missed and all(missed) else ""


def _make(point: Point, plan: Plan, identity: str) -> Result:
    """Export a point into a folder of its own, and count its accuracy."""
    folder = plan.out / f"{point.model}-{point.ptq}-{identity[:8]}"
    try:
        if missed := _too_many_macs(point, plan.budget):
            return Result(point=point, state="over budget", error=missed)
        artifacts = tuple(_exported(point, plan, folder))
        if missed := _all_missed(artifacts, plan.budget):
            return Result(point=point, state="over budget", error=missed, artifacts=artifacts)
        if plan.data is not None:
            artifacts = _with_accuracy(artifacts, plan)
        return Result(point=point, state="exported", artifacts=artifacts)
    except MobileDeployError as error:
        return Result(point=point, state="failed", error=error.message)


def _too_many_macs(point: Point, budget: Budget) -> str:
    """Return by how much a point exceeds the MACs, before any work; empty if it does not."""
    if budget.max_macs is None:
        return ""
    from mobiledeploy.models.spec import ModelSpec  # noqa: PLC0415 - loads torch
    from mobiledeploy.models.summary import summarize  # noqa: PLC0415

    fields: dict[str, Any] = {"width": point.width} if point.width is not None else {}
    if point.resolution is not None:
        fields["resolution"] = point.sides
    fields["family"] = point.model
    macs = summarize(ModelSpec(weights="random", **fields)).macs
    over = macs > budget.max_macs
    return f"{macs / 1e6:.0f} M MACs, above {budget.max_macs / 1e6:g} M" if over else ""


def _exported(point: Point, plan: Plan, folder: Path) -> Iterator[MeasuredArtifact]:
    arguments = ["export", *point.export_arguments(), "--out", str(folder), "--json"]
    for each in plan.formats:
        arguments += ["--format", each]
    if plan.calib_data is not None and point.ptq != "fp32":
        arguments += ["--calib-data", str(plan.calib_data)]
    document = _run(arguments, threads=max(1, (os.cpu_count() or 1) // plan.jobs))
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
    artifacts: Sequence[MeasuredArtifact], plan: Plan
) -> tuple[MeasuredArtifact, ...]:
    """Count the accuracy of the first artifact: all formats give the same logits."""
    arguments = ["evaluate", artifacts[0].path, "--data", str(plan.data), "--json", "-"]
    arguments += [] if plan.samples is None else ["--samples", str(plan.samples)]
    document = _run(arguments, threads=1)
    top1 = document["networks"][0]["top1_accuracy"]
    return tuple(replace(artifact, top1=top1) for artifact in artifacts)


def _with_latency(result: Result, plan: Plan) -> Result:
    """Measure the artifacts of a point together on every device."""
    artifacts = list(result.artifacts)
    try:
        for device in plan.devices:
            arguments = ["bench", *(artifact.path for artifact in artifacts)]
            arguments += ["--device", device, "--runs", str(plan.runs), "--json", "-"]
            measured = _run(arguments, threads=1)["measurements"]
            artifacts = [
                replace(
                    artifact, latency_ms={**artifact.latency_ms, device: median(each["times_ms"])}
                )
                for artifact, each in zip(artifacts, measured, strict=True)
            ]
    except MobileDeployError as error:
        return replace(result, state="failed", error=error.message, artifacts=tuple(artifacts))
    return replace(result, state="done", artifacts=tuple(artifacts))


def _run(arguments: Sequence[str], *, threads: int) -> dict[str, Any]:
    """Run a mobiledeploy command and return its JSON document.

    Raises:
        RuntimeFailedError: it failed; the message is its error.
    """
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "mobiledeploy", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode != 0:
        raise RuntimeFailedError(_error_of(done.stderr) or f"exit code {done.returncode}")
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def _error_of(stderr: str) -> str:
    """Return the error that a command printed last, without line breaks."""
    _, found, text = stderr.rpartition("Error: ")
    message = text.partition("\nTry: ")[0] if found else stderr[-300:]
    return " ".join(message.split())
