"""Tensors of a `.pte`, as program.fbs and scalar_type.fbs describe them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mobiledeploy.artifact.flatbuffer import Generated

# ScalarType of scalar_type.fbs -> numpy's name and the bytes of an element.
SCALAR_TYPES = {
    0: ("uint8", 1),
    1: ("int8", 1),
    2: ("int16", 2),
    3: ("int32", 4),
    4: ("int64", 8),
    5: ("float16", 2),
    6: ("float32", 4),
    7: ("float64", 8),
    11: ("bool", 1),
    15: ("bfloat16", 2),
}


def datatype_of(value: Generated) -> str:
    """Return the datatype of a tensor; of anything else what the format calls it ("Int")."""
    if not hasattr(value, "scalarType"):
        return type(value).__name__.removesuffix("T")
    return SCALAR_TYPES[value.scalarType][0]


def shape_of(value: Generated) -> tuple[int, ...]:
    """Return the shape of a tensor; () of anything else."""
    return tuple(int(size) for size in getattr(value, "sizes", ()))
