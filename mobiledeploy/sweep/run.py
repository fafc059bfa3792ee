"""Make and measure the points of a sweep.

Input: points, and what to do with each. Output: their results, kept in a `Store` one by one.
Exports run in parallel; latency is measured when nothing else runs. With a latency budget, small
points are made and measured first, so that larger ones that cannot keep it are never made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from mobiledeploy.sweep.prune import all_missed, by_size, latency_missed, macs_missed
from mobiledeploy.sweep.store import Result

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mobiledeploy.sweep.make_point import Plan
    from mobiledeploy.sweep.pick import Budget
    from mobiledeploy.sweep.points import Point
    from mobiledeploy.sweep.store import Store

    Put = Callable[[str, Result], None]


class Workers(Protocol):
    """Where points are made: this machine, or a cluster."""

    @property
    def slots(self) -> int:
        """Return how many points can be made at the same time."""

    def make(self, points: Mapping[str, Point], put: Put) -> None:
        """Make points, given by identity; hand over each result as soon as it is there."""

    def measure(self, results: Mapping[str, Result], put: Put) -> None:
        """Measure the latency of exported points, given by identity."""


def run(
    points: Sequence[Point], plan: Plan, store: Store, workers: Workers, *, retry: bool
) -> list[Result]:
    """Make and measure all points that the store does not hold yet.

    Args:
        points: The points.
        plan: What is done with each.
        store: Keeps the results.
        workers: Where the points are made.
        retry: Whether to try failed points again.

    Returns:
        The results, in the order of the points.
    """
    context = plan.context()
    asked = {point.identity(context): point for point in points}
    missing = {
        key: point
        for key, point in asked.items()
        if _is_missing(store.get(key), plan.budget, retry=retry)
    }
    for wave in _waves(missing, plan.budget, workers.slots):
        wanted = {}
        known = [result for key in asked if (result := store.get(key)) is not None]
        for key, point in wave.items():
            if missed := latency_missed(point, known, plan.budget):
                store.put(key, Result(point=point, state="over budget", error=missed))
            else:
                wanted[key] = point
        if wanted:
            workers.make(wanted, store.put)
        exported = {
            key: result
            for key in asked
            if (result := store.get(key)) is not None and result.state == "exported"
        }
        if exported:
            workers.measure(exported, store.put)
    found = (store.get(key) for key in asked)
    return [result for result in found if result is not None]


def _waves(points: Mapping[str, Point], budget: Budget, slots: int) -> list[dict[str, Point]]:
    """Return points in the groups in which they are made and then measured.

    The first group is empty where latency decides about the next one: what was exported earlier is
    measured first.
    """
    if budget.max_latency_ms is None:
        return [dict(points)]
    ordered = sorted(points.items(), key=lambda item: by_size(item[1]))
    groups = [dict(ordered[first : first + slots]) for first in range(0, len(ordered), slots)]
    return [{}, *groups]


def _is_missing(kept: Result | None, budget: Budget, *, retry: bool) -> bool:
    """Return whether a point is new, or was given up for a reason that no longer holds."""
    if kept is None or kept.state == "interrupted":
        return True
    if kept.state == "over budget":
        return not (macs_missed(kept.point, budget) or all_missed(kept.artifacts, budget))
    return retry and kept.state == "failed"
