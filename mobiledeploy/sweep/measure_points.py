"""Measure the latency of exported points on devices, or count instructions there.

Each session of `bench` is a new process, which loads its runtime first. Some points are measured
together, because `bench` needs as many sessions for one artifact as for three.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import islice
from statistics import median
from typing import TYPE_CHECKING, Any

from mobiledeploy.errors import MobileDeployError
from mobiledeploy.sweep.commands import InterruptedCommandError
from mobiledeploy.sweep.make_point import DeviceName

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mobiledeploy.sweep.commands import Commands
    from mobiledeploy.sweep.make_point import Plan
    from mobiledeploy.sweep.store import MeasuredArtifact, Result


def together(results: Mapping[str, Result], plan: Plan) -> list[dict[str, Result]]:
    """Return results in the groups in which they are measured.

    A group is large enough that no artifact has more than one session of its own.
    """
    from mobiledeploy.bench.measure import MIN_SESSIONS  # noqa: PLC0415 - loads numpy

    size = math.ceil(MIN_SESSIONS / len(plan.formats))
    items = iter(results.items())
    return [dict(group) for group in iter(lambda: list(islice(items, size)), [])]


def measured_on(
    results: Sequence[Result], devices: Sequence[str], plan: Plan, commands: Commands
) -> list[Result]:
    """Measure the artifacts of points together on devices where they were not measured yet.

    If that fails, each point is measured alone. A state becomes "done" when all devices of the plan
    are.
    """
    measured = list(results)
    try:
        for device in devices:
            measured = _measured_on_one(measured, device, plan, commands)
    except InterruptedCommandError as error:  # what was measured is kept
        return [replace(each, error=error.message) for each in measured]
    except MobileDeployError as error:
        if len(measured) > 1:
            alone = (measured_on([each], devices, plan, commands) for each in measured)
            return [result for (result,) in alone]
        return [replace(each, state="failed", error=error.message) for each in measured]
    return [_judged(each, plan) for each in measured]


def _judged(result: Result, plan: Plan) -> Result:
    is_done = all(set(plan.devices) <= artifact.measured_on for artifact in result.artifacts)
    return replace(result, state="done" if is_done else result.state, error="")


def _measured_on_one(
    results: Sequence[Result], device: str, plan: Plan, commands: Commands
) -> list[Result]:
    """Measure the points that were not measured on a device yet.

    Raises:
        MobileDeployError: `bench` failed or was interrupted.
    """
    is_missing = [any(device not in a.measured_on for a in each.artifacts) for each in results]
    missing = [each for each, wanted in zip(results, is_missing, strict=True) if wanted]
    if not missing:
        return list(results)
    arguments = ["bench", *(artifact.path for each in missing for artifact in each.artifacts)]
    arguments += ["--device", DeviceName(device).uri]
    if plan.counting and DeviceName(device).counts:
        arguments += ["--count-instructions"]
    else:
        arguments += ["--runs", str(plan.runs)]
    document = commands.run([*arguments, "--json", "-"], threads=1)
    host = document["host"]
    figures = iter(document["measurements"])

    def with_figures(result: Result) -> Result:
        found = list(islice(figures, len(result.artifacts)))
        artifacts = tuple(
            _with_figure(artifact, device, figure, host["model"] or host["architecture"])
            for artifact, figure in zip(result.artifacts, found, strict=True)
        )
        return replace(result, artifacts=artifacts)

    return [
        with_figures(each) if wanted else each
        for each, wanted in zip(results, is_missing, strict=True)
    ]


def _with_figure(
    artifact: MeasuredArtifact,
    device: str,
    measurement: Mapping[str, Any],
    machine: str,
) -> MeasuredArtifact:
    """Return an artifact with what `bench` found on a device: instructions, or times."""
    artifact = replace(artifact, machines=artifact.machines | {device: machine})
    if "median_instructions" in measurement:
        counts = artifact.instructions | {device: float(measurement["median_instructions"])}
        return replace(artifact, instructions=counts)
    times = artifact.latency_ms | {device: median(measurement["times_ms"])}
    return replace(artifact, latency_ms=times)
