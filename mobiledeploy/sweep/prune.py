"""Decide which points are not worth any work, or no more work, under a budget.

Before the export: by MACs, and by the measured latency of smaller points. After it: by size.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobiledeploy.errors import MobileDeployError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mobiledeploy.sweep.pick import Budget
    from mobiledeploy.sweep.points import Point
    from mobiledeploy.sweep.store import MeasuredArtifact, Result


def all_missed(artifacts: Sequence[MeasuredArtifact], budget: Budget) -> str:
    """Return what the first artifact misses; empty if there are none, or one keeps the budget."""
    missed = [budget.missed(artifact) for artifact in artifacts]
    return missed[0] if missed and all(missed) else ""


def macs_missed(point: Point, budget: Budget) -> str:
    """Return by how much a point exceeds the MACs, before any work; empty if it does not."""
    if budget.max_macs is None:
        return ""
    macs = _macs(point)
    over = macs is not None and macs > budget.max_macs
    return f"{macs / 1e6:.0f} M MACs, above {budget.max_macs / 1e6:g} M" if over and macs else ""


def latency_missed(point: Point, results: Iterable[Result], budget: Budget) -> str:
    """Return which smaller point is already too slow; empty if none is known.

    A point is smaller if it differs in width and resolution only, and is larger in neither.
    """
    if budget.max_latency_ms is None:
        return ""
    for result in results:
        times = [max(each.latency_ms.values(), default=0.0) for each in result.artifacts]
        if times and min(times) > budget.max_latency_ms and _is_smaller(result.point, point):
            return (
                f"{result.point.title} is smaller and takes {min(times):.3g} ms,"
                f" above {budget.max_latency_ms:g} ms"
            )
    return ""


def by_size(point: Point) -> tuple[int, float]:
    """Return a key that sorts points from small to large."""
    height, width = _sides(point)
    return height * width, _width(point)


def _is_smaller(a: Point, b: Point) -> bool:
    if (a.model, a.ptq, a.weights, a.input) != (b.model, b.ptq, b.weights, b.input):
        return False
    no_larger = _width(a) <= _width(b) and all(
        x <= y for x, y in zip(_sides(a), _sides(b), strict=True)
    )
    return no_larger and (_width(a), _sides(a)) != (_width(b), _sides(b))


def _width(point: Point) -> float:
    return 1.0 if point.width is None else point.width


def _sides(point: Point) -> tuple[int, int]:
    from mobiledeploy.checkpoints.published import RESOLUTION  # noqa: PLC0415 - loads more

    sides = RESOLUTION if point.resolution is None else point.sides
    return (sides, sides) if isinstance(sides, int) else sides


def _macs(point: Point) -> int | None:
    """Return the MACs of a point; None if its checkpoint or its options are refused.

    The export says why they are.
    """
    from mobiledeploy.checkpoints.resolve import resolve  # noqa: PLC0415 - loads torch
    from mobiledeploy.models.build import create_on_meta  # noqa: PLC0415
    from mobiledeploy.models.spec import ModelSpec, family_named  # noqa: PLC0415
    from mobiledeploy.models.summary import summarize  # noqa: PLC0415

    fields: dict[str, Any] = {"weights": "random"}
    if Path(point.weights).is_file():
        fields["weights"] = point.weights
    if point.width is not None:
        fields["width"] = point.width
    if point.resolution is not None:
        fields["resolution"] = point.sides
    try:
        spec = ModelSpec(family=family_named(point.model), **fields)
        return summarize(resolve(spec, fields.keys(), create_on_meta).spec).macs
    except MobileDeployError:
        return None
