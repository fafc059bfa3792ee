"""The scale of a global average pool, such that every runtime rounds every mean alike.

With S the sum of `count` values q - z, and r the source's scale / the pooled scale, all of them
round S f, f = r / count, to an integer, each in its own way:

    XNNPACK              round(float32(sum q) f + (z' - count z f)), to even
    ONNX Runtime         round(float32(S) f) + z', to even on x86-64
    the same, ARM64      (S m + 2**(k-1)) >> k with f = m / 2**k: away from zero

They differ where S f is half-way between two integers, or so near that float32 decides. Neither
happens where r = p / q with q odd and p a multiple of the power of two in `count`: with o the odd
part of `count`, S f = S i / (q o) has an odd denominator, so its distance from half-way is at
least 1 / (2 q o). A ratio is taken where that is more than float32 can be off by.

Sources: XNNPACK, src/operators/reduce-nd.c and src/reference/unary-elementwise.cc; ONNX Runtime,
onnxruntime/core/mlas/lib/qlgavgpool.cpp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mobiledeploy.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOWER_RUNGS = 0.995 ** np.arange(800)  # down to 1/55 of what was asked for
_ROUNDINGS = 4  # of numbers as large as the largest mean, in the longest of the formulas


def scale_of_mean(wanted: float, source: float, count: int) -> float:
    """Return the scale, not below `wanted`, at which a mean of `count` codes is never half-way.

    Args:
        wanted: What the range of the mean asks for.
        source: Scale of the tensor that is pooled.
        count: Elements per mean.

    Raises:
        ExportError: there is none within reach.
    """
    for p, q in _ratios(source / wanted, count):
        scale = float(np.float32(source * q / p))
        if _off_by(source, scale, count, p / (q * count)) < 1 / (2 * q * _odd_part(count)):
            return scale
    raise ExportError(f"A mean of {count} codes can be rounded alike at no scale near {wanted}.")


def _odd_part(count: int) -> int:
    return count // (count & -count)


def _ratios(wanted: float, count: int) -> Iterator[tuple[int, int]]:
    """Yield p, q with p / q at most `wanted`, falling: q odd, p a multiple of count's 2**a."""
    twos = count & -count
    denominators = np.arange(1, max(128, 4 * twos), 2)
    seen = set()
    for limit in wanted * _LOWER_RUNGS:
        numerators = twos * np.floor(limit * denominators / twos + 1e-9).astype(np.int64)
        order = np.argsort(-numerators / denominators, kind="stable")
        for p, q in zip(numerators[order].tolist(), denominators[order].tolist(), strict=True):
            if p and p / q > limit * _LOWER_RUNGS[1] and (p, q) not in seen:
                seen.add((p, q))
                yield p, q


def _off_by(source: float, scale: float, count: int, exact: float) -> float:
    """Return a bound on |S f in float32 - S f|, for any sum of any codes."""
    one, elements = np.float32(1), np.float32(count)
    scale_in, scale_out = np.float32(source), np.float32(scale)
    factors = (one / elements * (scale_in / scale_out), scale_in / (scale_out * elements))
    largest = 255 * count
    rounding = float(np.spacing(np.float32(largest * exact))) / 2
    factor_error = max(abs(float(factor) - exact) for factor in factors)
    return largest * factor_error + _ROUNDINGS * rounding
