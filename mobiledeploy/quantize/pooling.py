"""The scale of a global average pool, such that every runtime rounds every mean alike.

With S the sum of `count` values q - z, and r the source's scale / the pooled scale, all of them
round S f, f = r / count, to an integer, each in its own way:

    XNNPACK              round(float32(sum q) f + (z' - count z f)), to even
    ONNX Runtime         round(float32(S) f) + z', to even on x86-64
    the same, ARM64      (S m + 2**(k-1)) >> k with f = m / 2**k: away from zero

They differ where S f is half-way between two integers, or so near that float32 decides. Neither
happens where f = i / D with D odd: S f is then at least 1 / (2 D) from half-way, and a scale is
taken where that is more than float32 can be off by. For means of up to 113 x 113 codes there is one
within half a percent of what is wanted, where that is the source's scale down to a 32nd of it, and
within 1.3% down to a 128th. Coarser scales than the source's, which no mean needs, end sooner.

Sources: XNNPACK, src/operators/reduce-nd.c and src/reference/unary-elementwise.cc; ONNX Runtime,
onnxruntime/core/mlas/lib/qlgavgpool.cpp.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.errors import ExportError


def scale_of_mean(wanted: float, source: float, count: int) -> float:
    """Return the least scale, not below `wanted`, at which no mean of codes is near half-way.

    Args:
        wanted: What the range of the mean asks for.
        source: Scale of the tensor that is pooled.
        count: Elements per mean.

    Raises:
        ExportError: there is none: the means are of too many elements.
    """
    ratio = source / wanted
    denominators = np.arange(1, int(1 / (2 * _rounding(ratio))), 2)
    factors = np.floor(denominators * (ratio / count) + 1e-9) / denominators
    falling = np.argsort(-factors, kind="stable")[: np.count_nonzero(factors)]
    denominators, factors = denominators[falling], factors[falling]
    scales = (source / (factors * count)).astype(np.float32)
    (clear,) = np.nonzero(_off_by(source, scales, count, factors) < 1 / (2 * denominators))
    if not len(clear):
        raise ExportError(
            f"A mean of {count} codes cannot be rounded alike by all runtimes.",
            remedy="Choose a smaller --resolution: up to 113 x 113 codes it can.",
        )
    return float(scales[clear[0]])


def _off_by(
    source: float, scales: NDArray[np.float32], count: int, factors: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return bounds on |S f in float32 - S f|, for any sum of codes whose mean is a code."""
    one, elements, scale_in = np.float32(1), np.float32(count), np.float32(source)
    in_float32 = (one / elements * (scale_in / scales), scale_in / (scales * elements))
    errors = np.max([np.abs(f.astype(np.float64) - factors) for f in in_float32], axis=0)
    largest = np.minimum(255 * count, 256 / factors)  # beyond it every formula saturates
    bounds: NDArray[np.float64] = largest * errors + _rounding(factors * count)
    return bounds


def _rounding(ratio: Any) -> Any:
    """Return what the roundings of the longest formula, XNNPACK's, add up to at most.

    Two products, of up to 128 codes times the ratio; their difference with z'; and the sum, which
    is a code. ONNX Runtime's have one product, of up to 255.

    Args:
        ratio: The source's scale / the pooled scale, one or many.
    """
    return 2 * _half_ulp(128 * ratio) + _half_ulp(128 * ratio + 128) + _half_ulp(255.0)


def _half_ulp(value: Any) -> Any:
    return np.spacing(np.float32(value)).astype(np.float64) / 2
