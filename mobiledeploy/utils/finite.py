"""Finite numbers, also among integers that are larger than any float."""

from __future__ import annotations

import sys


def is_finite(value: float) -> bool:
    """Return whether a number has a finite float; `math.isfinite` fails on huge integers."""
    return abs(value) <= sys.float_info.max
