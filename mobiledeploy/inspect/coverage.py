"""From the operators of a graph to its int8 coverage; the rules are in `types.Coverage`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mobiledeploy.artifact.coverage import Coverage, FloatIsland
from mobiledeploy.inspect.summary import INT8

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorWork:
    """What one computing operator does for one image.

    Attributes:
        name: As the artifact or its runtime calls it.
        operator: Its kind.
        reads: Datatype of the activation that it reads first.
        writes: Datatype of the activation that it writes.
        elements: That it writes.
        macs: 0 for all but convolutions and matrix products.
    """

    name: str
    operator: str
    reads: str
    writes: str
    elements: int
    macs: int


def coverage_of(work: Iterable[OperatorWork], counted_in: str) -> Coverage:
    """Count."""
    operators = tuple(work)
    islands = [o for o in operators if o.writes not in INT8]
    return Coverage(
        counted_in=counted_in,
        macs=sum(o.macs for o in operators),
        int8_macs=sum(o.macs for o in operators if o.reads in INT8),
        elements=sum(o.elements for o in operators),
        int8_elements=sum(o.elements for o in operators if o.writes in INT8),
        float_islands=tuple(
            FloatIsland(name=o.name, operator=o.operator, elements=o.elements, macs=o.macs)
            for o in islands
        ),
    )
