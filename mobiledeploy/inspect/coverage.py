"""Count int8 coverage from the operators of a graph; `artifact.coverage` has the rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mobiledeploy.artifact.coverage import Coverage, FloatIsland
from mobiledeploy.inspect.summary import INT8

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorWork:
    """The work of one operator for one image.

    Attributes:
        name: Its name in the artifact or its runtime.
        operator: Its kind.
        reads: Datatype of its first input.
        writes: Datatype of its output.
        elements: Number of elements of its output.
        macs: Multiply-accumulates; 0 except for convolutions and matrix products.
    """

    name: str
    operator: str
    reads: str
    writes: str
    elements: int
    macs: int


def coverage_of(work: Iterable[OperatorWork], counted_in: str) -> Coverage:
    """Return the sums over all operators.

    Args:
        work: The operators, without conversions and changes of layout.
        counted_in: The graph that they come from.
    """
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
