"""Scales at which no integer result lies half-way between two codes, so that no rounding differs.

An int8 operator rounds n r to a code, where n is its integer result and r the requantization ratio:
s_x s_w / s_y for a convolution or a linear layer, s_a s_b / s_y for a product. Runtimes round
differently: half to even, half away from zero, half up, by a fixed-point multiplier of 31 bits, or
in float around dequantized numbers. They can disagree only where n r is half-way between two
integers, or nearer to it than their own error.

Theorem. If r = i / d with d odd, then |n r - (k + 1/2)| >= 1 / (2 d) for all integers n and k.
Proof. 2 d (n r - (k + 1/2)) = 2 n i - (2 k + 1) d is the difference of an even and an odd integer,
so it is odd, and at least 1 in magnitude.

The runtimes' own errors are smaller. Scales are float32, so the real ratio is i / d to a few parts
in 2^24, which moves a result of at most 256 steps by less than `FLOAT32_ERROR`. A fixed-point
multiplier of 31 bits that is rounded once adds 2^-31 of the result. Both are below 1 / (2 d) for
d <= `LARGEST_DENOMINATOR`. A runtime that adds dequantized numbers in float also errs in the sum;
the parity rung "any rounding" measures that on real images.

Weight scales are moved to such ratios before weights are rounded, by at most `TOLERANCE`, so that
nothing is rounded twice. A channel whose ratio is below 1 / `LARGEST_DENOMINATOR` gets that ratio:
its weights are so small that a coarser grid is enough.

Biases, residual additions and concatenations cannot tie. A bias is part of the integer n. The
operands and the result of an addition or a concatenation share one scale (see `graph.aten_graph`),
so their ratio is 1. Not covered is gemmlowp's multiplication, which rounds twice (decision record
0017).
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOLERANCE = 0.002
LARGEST_DENOMINATOR = 1999
# Of n r in float32 for results of up to 256 steps: n, three scales, their product and quotient, and
# the multiplication are each rounded to within 2^-24.
FLOAT32_ERROR = 256 * 7 * 2.0**-24


def tie_free_ratios(ratios: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the nearest ratios i / d with the smallest odd d that is near enough.

    Args:
        ratios: Requantization ratios, (channels,), all positive.

    Returns:
        Fractions within `TOLERANCE` of the ratios, (channels,); at least
        1 / `LARGEST_DENOMINATOR`.
    """
    ratios = np.maximum(ratios, 1 / LARGEST_DENOMINATOR)
    _, fractions = _nearest_fractions(ratios)
    near = np.abs(fractions / ratios[:, None] - 1) <= TOLERANCE
    best = np.where(near.any(1), near.argmax(1), np.abs(fractions - ratios[:, None]).argmin(1))
    chosen: NDArray[np.float64] = fractions[np.arange(len(ratios)), best]
    return chosen


def margin_of(ratios: NDArray[np.floating[Any]]) -> float:
    """Return the smallest distance of any n r from half-way, in steps, for all these ratios.

    Args:
        ratios: The ratios that runtimes compute with, each within float32's precision of i / d.

    Returns:
        The smallest 1 / (2 d), less what the ratio's own deviation from i / d moves 256 steps by;
        0 where a ratio is near no odd fraction.
    """
    exact: NDArray[np.float64] = ratios.astype(np.float64)
    denominators, fractions = _nearest_fractions(exact)
    moved = np.abs(exact[:, None] / fractions - 1) * 256
    return max(0.0, float((1 / (2 * denominators) - moved).max(1).min()))


def _nearest_fractions(ratios: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Return the odd denominators, (D,), and the nearest i / d >= 1 / d, (channels, D)."""
    denominators = _odd_denominators()
    return denominators, np.maximum(1, np.rint(ratios[:, None] * denominators)) / denominators


@cache
def _odd_denominators() -> NDArray[np.float64]:
    return np.arange(1, LARGEST_DENOMINATOR + 1, 2, dtype=np.float64)
