"""Choose among measured artifacts: budgets, the Pareto front, the pick.

Input: results of a sweep. Output: `Row`s, one per artifact, with what they miss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mobiledeploy.sweep.points import Point
    from mobiledeploy.sweep.store import MeasuredArtifact, Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What an artifact may cost and has to reach; None for no limit.

    Attributes:
        max_latency_ms: Largest median latency, on every device.
        max_size_bytes: Largest file.
        max_macs: Most multiply-accumulates.
        min_top1: Least top-1 accuracy.
    """

    max_latency_ms: float | None = None
    max_size_bytes: float | None = None
    max_macs: float | None = None
    min_top1: float | None = None

    def missed(self, artifact: MeasuredArtifact) -> str:
        """Return the first limit that an artifact misses; empty if it keeps all.

        What was not measured is not missed.
        """
        if self.max_size_bytes is not None and artifact.size_bytes > self.max_size_bytes:
            return f"{artifact.size_bytes / 1e6:.2f} MB, above {self.max_size_bytes / 1e6:g} MB"
        slowest = max(artifact.latency_ms.values(), default=0.0)
        if self.max_latency_ms is not None and slowest > self.max_latency_ms:
            return f"{slowest:.3g} ms, above {self.max_latency_ms:g} ms"
        top1 = artifact.top1
        if self.min_top1 is not None and top1 is not None and top1 < self.min_top1:
            return f"top-1 {top1:.4f}, below {self.min_top1:g}"
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One artifact in the table of a sweep.

    Attributes:
        point: The point that it belongs to.
        artifact: What was measured.
        missed: The first limit that it misses; empty if it keeps all.
        on_front: Whether no other artifact is at least as good in everything and better in
            something: accuracy, latency, size. What was not measured counts as the worst.
    """

    point: Point
    artifact: MeasuredArtifact
    missed: str
    on_front: bool

    @property
    def name(self) -> str:
        """Return the point and the format, for example "v2, 160 pixels, fast (.onnx)"."""
        return f"{self.point.title} (.{self.format})"

    @property
    def format(self) -> str:
        """Return the suffix of the artifact without its dot."""
        return self.artifact.path.rpartition(".")[2]


def rows_of(results: Iterable[Result], budget: Budget) -> list[Row]:
    """Return one row per artifact."""
    artifacts = [(result.point, each) for result in results for each in result.artifacts]
    measured = [artifact for _, artifact in artifacts]
    return [
        Row(
            point=point,
            artifact=artifact,
            missed=budget.missed(artifact),
            on_front=not any(_dominates(other, artifact) for other in measured),
        )
        for point, artifact in artifacts
    ]


def ranked(rows: Sequence[Row]) -> list[Row]:
    """Return the rows within the budget, the best first: accuracy, then latency, then size.

    Empty if no accuracy was measured.
    """
    possible = [row for row in rows if not row.missed and row.artifact.top1 is not None]
    return sorted(possible, key=lambda row: _costs(row.artifact))


def reason(best: Sequence[Row]) -> str:
    """Return why the first of the ranked rows won against the second, in one sentence."""
    if not best:
        return ""
    if len(best) == 1:
        return "It is the only one within the budget."
    (top1, latency, size), (other_top1, other_latency, other_size) = (
        _costs(row.artifact) for row in best[:2]
    )
    if top1 != other_top1:
        what = f"its top-1 is {other_top1 - top1:.4f} higher"
    elif math.isinf(other_latency) and not math.isinf(latency):
        what = "its top-1 is the same, and the latency of the second was not measured"
    elif latency != other_latency:
        what = f"its top-1 is the same, and it is {other_latency - latency:.2g} ms faster"
    elif size != other_size:
        what = (
            f"top-1 and latency are the same, and it is {(other_size - size) / 1e6:.2g} MB smaller"
        )
    else:
        what = "both are the same in accuracy, latency and size"
    return f"Against the second, {best[1].name}: {what}."


def no_pick(rows: Sequence[Row]) -> str:
    """Return why no row was picked, without a full stop."""
    if not rows:
        return "No point was exported"
    if all(row.missed for row in rows):
        return "No artifact keeps the budget"
    return "No pick: no accuracy was measured (--data)"


def _dominates(a: MeasuredArtifact, b: MeasuredArtifact) -> bool:
    """Return whether a is at least as good as b in everything, and better in something."""
    mine, others = _costs(a), _costs(b)
    return all(x <= y for x, y in zip(mine, others, strict=True)) and mine != others


def _costs(artifact: MeasuredArtifact) -> tuple[float, float, float]:
    """Return what has to be small: the error, the latency, the size. The unknown is the worst."""
    error = math.inf if artifact.top1 is None else -artifact.top1
    return error, max(artifact.latency_ms.values(), default=math.inf), artifact.size_bytes
