"""Figures as JSON can hold them, which has neither infinities nor NaN.

Null is plus infinity and nothing else, for of an SQNR it says that none differs: a reader takes it
for the best there is. The others are told by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def finite(value: Any) -> Any:
    """Return a figure, or whatever holds figures, as `json.dumps` can write it."""
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    if not isinstance(value, float) or math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return None if value > 0 else "-Infinity"


def figure(value: float | str | None) -> float:
    """Return what `finite` was given.

    Raises:
        ValueError: `finite` has not written that.
    """
    return math.inf if value is None else float(value)
