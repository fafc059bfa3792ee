"""Tensors of a `.pte`; see executorch/schema/program.fbs and scalar_type.fbs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mobiledeploy.artifact.flatbuffer import Generated

# ScalarType of scalar_type.fbs -> numpy's name, bytes per element
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
    """Return the datatype of a tensor, or the format's name of another kind of value ("Int")."""
    if not hasattr(value, "scalarType"):
        return type(value).__name__.removesuffix("T")
    return SCALAR_TYPES[value.scalarType][0]


def shape_of(value: Generated) -> tuple[int, ...]:
    """Return the shape of a tensor; () for another kind of value."""
    return tuple(int(size) for size in getattr(value, "sizes", ()))
