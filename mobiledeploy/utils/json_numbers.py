"""Floats in JSON, which has no infinities and no NaN.

+inf is written as null: as an SQNR it means that the outputs are equal, which a reader may treat as
"no limit". -inf and NaN are written as the strings "-Infinity" and "NaN".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def encode_floats(value: Any) -> Any:
    """Return `value` with every float, at any depth, as JSON can hold it; tuples become lists."""
    if isinstance(value, Mapping):
        return {key: encode_floats(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [encode_floats(inner) for inner in value]
    if not isinstance(value, float) or math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return None if value > 0 else "-Infinity"


def decode_float(value: float | str | None) -> float:
    """Return the float that `encode_floats` wrote.

    Raises:
        ValueError: the value is none of those that `encode_floats` writes.
    """
    return math.inf if value is None else float(value)
