"""Scales at which no integer result lies half-way between two codes, so that no rounding differs.

An int8 operator rounds n r to a code, where n is its integer result and r the requantization ratio:
s_x s_w / s_y for a convolution or a linear layer, s_a s_b / s_y for a product. Runtimes round
differently: half to even, half away from zero, half up, by a fixed-point multiplier of 31 bits, or
in float around dequantized numbers. They can disagree only where n r is half-way between two
integers, or nearer to it than their own error.

Theorem. If r = i / d with d odd, then |n r - (k + 1/2)| >= 1 / (2 d) for all integers n and k.
Proof. 2 d (n r - (k + 1/2)) = 2 n i - (2 k + 1) d is the difference of an even and an odd integer,
so it is odd, and at least 1 in magnitude.

The runtimes' own errors are smaller. Scales are float32, so the real ratio is i / d to a part in
2^24, and runtimes round up to four times more, which makes less than `float32_error`. Together this
is below 1 / (2 d) for d up to `largest_denominator`. A fixed-point
multiplier of 31 bits that is rounded once adds 2^-31 of the result. A runtime that adds dequantized
numbers in float also errs in the sum; the parity rung "any rounding" measures that on real images.

Weight scales are moved to such ratios before weights are rounded, by at most `TOLERANCE`, so that
nothing is rounded twice. A channel whose ratio is below 1 / `largest_denominator` gets that ratio,
a coarser grid than its weights ask for. These are channels with tiny weights, and layers with
thousands of inputs, such as a classifier.

Biases, residual additions and concatenations cannot tie. A bias is part of the integer n. The
operands and the result of an addition or a concatenation share one scale (see
`graph.shared_encodings`), so their ratio is 1. Not covered is gemmlowp's multiplication, which
rounds twice (decision record 0017).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

TOLERANCE = 0.001
_ROUNDING = 2.0**-24  # of one number to float32, relative
_ROUNDINGS = 4  # n, the product and the quotient of scales, and the multiplication by n
_BLOCK = 256  # denominators that are tried at once


def float32_error(steps: float) -> float:
    """Return a bound on the error of n r in float32, for results of up to so many steps."""
    return _ROUNDINGS * _ROUNDING * steps


def largest_denominator(steps: float) -> int:
    """Return the largest odd d at which results of so many steps are safe.

    1 / (2 d) exceeds `float32_error` and the rounding of the declared scale.
    """
    return int(1 / (2 * (float32_error(steps) + _ROUNDING * steps)) - 1) // 2 * 2 + 1


def steps_of(zero_point: int) -> float:
    """Return how many steps from zero a result can be, and half a step, without saturating."""
    return max(128 + zero_point, 127 - zero_point) + 0.5


def tie_free_ratios(ratios: NDArray[np.float64], steps: float) -> NDArray[np.float64]:
    """Return near ratios i / d, each with the smallest odd d that is near enough.

    Args:
        ratios: Requantization ratios, (channels,), all positive.
        steps: The largest result that does not saturate, in steps (see `steps_of`).

    Returns:
        Fractions within `TOLERANCE` of the ratios, (channels,); at least
        1 / `largest_denominator`.
    """
    largest = largest_denominator(steps)
    ratios = np.maximum(ratios, 1 / largest)
    chosen = np.empty_like(ratios)
    left = np.arange(len(ratios))
    for denominators in _odd_denominators(largest):
        fractions = _nearest_fractions(ratios[left], denominators)
        near = np.abs(fractions / ratios[left, None] - 1) <= TOLERANCE
        found = near.any(1)
        chosen[left[found]] = fractions[found, near[found].argmax(1)]
        left = left[~found]
    # the last denominators are less than TOLERANCE apart, so every ratio is near one of them
    assert not len(left), "a ratio is near no odd fraction"
    return chosen


def margin_of(ratios: NDArray[np.floating[Any]], steps: float) -> float:
    """Return the smallest distance of any n r from half-way, in steps, for all these ratios.

    Args:
        ratios: The ratios that runtimes compute with, each within float32's precision of i / d.
        steps: The largest result that does not saturate, in steps.

    Returns:
        The smallest 1 / (2 d), less what the ratio's own deviation from i / d moves a result by;
        0 where a ratio is near no odd fraction.
    """
    exact: NDArray[np.float64] = ratios.astype(np.float64)
    margins = np.zeros_like(exact)
    for denominators in _odd_denominators(largest_denominator(steps)):
        (left,) = np.nonzero(margins < 1 / (2 * denominators[0]))  # a larger d cannot add to these
        moved = np.abs(exact[left, None] / _nearest_fractions(exact[left], denominators) - 1)
        distances = 1 / (2 * denominators) - moved * steps
        margins[left] = np.maximum(margins[left], distances.max(1, initial=0))
    return float(margins.min())


def _nearest_fractions(
    ratios: NDArray[np.float64], denominators: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the nearest i / d >= 1 / d, (channels, denominators)."""
    nearest: NDArray[np.float64] = np.maximum(1, np.rint(ratios[:, None] * denominators))
    return nearest / denominators


def _odd_denominators(largest: int) -> Iterator[NDArray[np.float64]]:
    """Yield the odd numbers up to the largest, block by block."""
    for first in range(1, largest + 1, 2 * _BLOCK):
        yield np.arange(first, min(first + 2 * _BLOCK, largest + 1), 2, dtype=np.float64)
