"""The encoding of one activation: scale and zero-point for a range.

Input: a range (low, high), and for some operators the encodings of their inputs. Output: an
`Encoding`, real = (q - z) s with

    s = (high - low) / 255,  z = round(-128 - low / s)        (Jacob et al. 2018, section 2.1)

Invariants: zero is exactly representable, and where runtimes compute an operator by different
formulas, the scale is one at which all formulas round to the same codes. For that the scale is
widened until no result is near a rounding tie, the middle between two codes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mobiledeploy.errors import ExportError
from mobiledeploy.quantization.tie_free import TOLERANCE, steps_of, tie_free_ratios
from mobiledeploy.stages import Encoding

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from mobiledeploy.network import Preprocessing

_TIE_MARGIN = 1e-3  # distance of single values from a rounding tie, in steps
_LEAST_SCALE = 1e-6 / 255
PIXELS = Encoding(scale=1.0, zero_point=-128)
"""The encoding of pixels that are the network's input: the codes plus 128 are the pixels."""
SIGMOID = Encoding(scale=1 / 256, zero_point=-128)
"""The encoding of every sigmoid."""
SIGMOID_SATURATES = 8.0
"""Beyond +-8 a sigmoid has the code of 0 or 1."""
# XNNPACK refuses to multiply by 256 or more when it requantizes; ranges are chosen for half of it.
REFUSED_REQUANTIZATION = 256.0
LARGEST_REQUANTIZATION = 128.0


def encode(low: float, high: float, least_scale: float = _LEAST_SCALE) -> Encoding:
    """Return the encoding that spans [low, high] and zero, with at least this scale."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32(max((high - low) / 255, least_scale)))
    return Encoding(scale=scale, zero_point=int(np.clip(np.rint(-128 - low / scale), -128, 127)))


def encode_around(low: float, high: float, bounds: Sequence[float]) -> Encoding:
    """Return the encoding that spans [low, high] and in which no bound is near a rounding tie.

    In a residual stream that a ReLU6 writes to, runtimes clamp at the code of 6. If 6 were a
    rounding tie, the code would depend on the runtime.

    Args:
        low: Lower end of the range.
        high: Upper end of the range.
        bounds: Bounds of clamps; those outside of the range are ignored.
    """
    inside = [bound for bound in bounds if low < bound < high]
    return _away_from_ties(encode(low, high), np.array(inside)) if inside else encode(low, high)


def encode_input(preprocessing: Preprocessing | None) -> Encoding:
    """Return the encoding of 8-bit images, in which no pixel value is clipped.

    XNNPACK multiplies by 1 / s where ONNX Runtime divides by s. The results differ in the last bit
    of a float, which matters near a rounding tie. There are only 256 values per channel, so a scale
    can be found at which none of them is near a tie.

    Args:
        preprocessing: How an app makes the input from pixels; None if the input is the pixels,
            which are then codes, so that nothing is rounded.
    """
    if preprocessing is None:
        return PIXELS
    values = pixel_values(preprocessing)
    return _away_from_ties(encode(float(values.min()), float(values.max())), values)


def pixel_values(preprocessing: Preprocessing | None) -> NDArray[np.float32]:
    """Return what the 256 values of a pixel become in each channel, (256, channels)."""
    if preprocessing is None:
        return np.arange(256, dtype=np.float32)[:, None]
    pixels = np.arange(256, dtype=np.float32)[:, None] / np.float32(255)
    mean, std = (np.array(each, np.float32) for each in (preprocessing.mean, preprocessing.std))
    return ((pixels - mean) / std).astype(np.float32)


def encode_hardswish(source: Encoding, span: tuple[float, float] | None = None) -> Encoding:
    """Return the encoding of the hard-swish of a tensor.

    XNNPACK computes a table in float, ONNX Runtime multiplies integers. Both round the same 256
    real numbers, and agree at a scale at which none of them is near a rounding tie.

    Args:
        source: Encoding of the input; values outside of it are already clipped.
        span: Range (low, high) to encode; by default that of the 256 results.
    """
    results = hardswish_values(source)
    low, high = span or (float(results.min()), float(results.max()))
    return _away_from_ties(encode(low, high), results)


def hardswish_values(source: Encoding) -> NDArray[np.float64]:
    """Return the hard-swish of each of the 256 codes of a tensor."""
    codes: NDArray[np.float64] = np.arange(-128, 128, dtype=np.float64)
    x = (codes - source.zero_point) * source.scale
    values: NDArray[np.float64] = x * np.clip(x + 3, 0, 6) / 6
    return values


def encode_before_sigmoid(low: float, high: float) -> Encoding:
    """Return the encoding of a sigmoid's input, at which all runtimes have one table.

    A sigmoid of codes is a table of 256 entries, whose own scale is fixed: XNNPACK and LiteRT take
    no other than 1 / 256. So the input's scale is widened until no entry is near a rounding tie.
    """
    return _widened(encode(low, high), sigmoid_steps)


def sigmoid_steps(source: Encoding) -> NDArray[np.float64]:
    """Return the sigmoid of each of the 256 codes of a tensor, in steps of `SIGMOID`."""
    codes: NDArray[np.float64] = np.arange(-128, 128, dtype=np.float64)
    values = 256 / (1 + np.exp(-(codes - source.zero_point) * source.scale))
    return np.minimum(values, 255.0)  # above it, the codes saturate


def encode_product(low: float, high: float, a: Encoding, b: Encoding) -> Encoding:
    """Return the encoding of the product of two tensors, for example of a signal and its SE gate.

    Runtimes multiply the integers, and the result by a ratio of scales, which is tie-free.

    Args:
        low: Lower end of the range.
        high: Upper end of the range.
        a: Encoding of the first tensor.
        b: Encoding of the second tensor.
    """
    step = a.scale * b.scale
    wanted = encode(low, high, step / LARGEST_REQUANTIZATION)
    (ratio,) = tie_free_ratios(np.array([step / wanted.scale]), steps_of(wanted.zero_point))
    return replace(wanted, scale=float(np.float32(step / ratio)))


def _away_from_ties(encoding: Encoding, values: NDArray[np.floating[Any]]) -> Encoding:
    """Widen a scale until no value is near a rounding tie (see `_widened`)."""
    return _widened(encoding, lambda wider: values / wider.scale)


def _widened(
    encoding: Encoding, steps_in: Callable[[Encoding], NDArray[np.floating[Any]]]
) -> Encoding:
    """Widen a scale in steps of 1e-4 until no result is within a margin of a rounding tie.

    If no scale within 2 % achieves that, take the one with the largest distance.

    Args:
        encoding: The encoding to begin with.
        steps_in: Returns the results in steps, for an encoding of another scale.
    """
    best, largest = encoding, -1.0
    for i in range(200):
        wider = replace(encoding, scale=float(np.float32(encoding.scale * (1 + i * 1e-4))))
        distance = tie_distance(steps_in(wider))
        if distance > largest:
            best, largest = wider, distance
        if largest > _TIE_MARGIN:
            break
    return best


def encode_pooled(low: float, high: float, source: Encoding, count: int) -> Encoding:
    """Return the encoding of the mean of `count` elements of a tensor.

    The range is cut to that of the input: float calibration may observe means that the input's
    encoding clips, and which no mean of codes can reach.

    Args:
        low: Lower end of the range.
        high: Upper end of the range.
        source: Encoding of the input.
        count: Elements per mean.

    Raises:
        ExportError: there are too many elements (see `scale_of_mean`).
    """
    least = source.scale / LARGEST_REQUANTIZATION
    wanted = encode(low, high, least)
    if wanted.scale > source.scale:
        wanted = encode(max(low, source.low), min(high, source.high), least)
    scale = scale_of_mean(wanted.scale, source.scale, count)
    return replace(wanted, scale=scale)


def encode_before_hardswish(high: float) -> Encoding:
    """Return the encoding of a hard-swish's input: it starts at -3, and 3 is a multiple of s.

    Below -3 hard-swish is zero, so clipping there loses nothing. With scale s / 6 and zero-point
    -128 the same codes, clamped at 1, are the hard-sigmoid.
    """
    steps_to_zero = max(1, int(3 * 255 / (max(high, 0.0) + 3)))
    return Encoding(scale=float(np.float32(3 / steps_to_zero)), zero_point=steps_to_zero - 128)


def tie_distance(steps: NDArray[np.floating[Any]]) -> float:
    """Return the smallest distance from half-way between two codes, of all that do not saturate."""
    inside = steps[np.abs(steps) < 257]
    return float(np.abs(inside - np.floor(inside) - np.float32(0.5)).min())


def scale_of_mean(wanted: float, source: float, count: int) -> float:
    """Return a scale, just above a wanted one, at which no mean of codes is near a rounding tie.

    Of the scales within `tie_free.TOLERANCE` it is the one that keeps means farthest from ties; if
    there is none, it is the least scale at which the runtimes' formulas agree.

    Args:
        wanted: Scale that the range of the mean asks for; the result is not below it.
        source: Scale of the tensor that is averaged.
        count: Elements per mean.

    Raises:
        ExportError: there is no such scale, because the means have too many elements.
    """
    ratio = source / wanted
    denominators = np.arange(1, int(1 / (2 * _rounding(ratio))), 2)
    factors = np.floor(denominators * (ratio / count) + 1e-9) / denominators
    descending = np.argsort(-factors, kind="stable")[: np.count_nonzero(factors)]
    denominators, factors = denominators[descending], factors[descending]
    scales = (source / (factors * count)).astype(np.float32)
    (exact,) = np.nonzero(_error_bounds(source, scales, count, factors) < 1 / (2 * denominators))
    if not len(exact):
        raise ExportError(
            f"Runtimes would round a mean of {count} codes differently; expected at most 113 x 113"
            " codes.",
            remedy="Choose a smaller --resolution.",
        )
    near = exact[factors[exact] >= (1 - TOLERANCE) * ratio / count]
    chosen = near[denominators[near].argmin()] if len(near) else exact[0]
    return float(scales[chosen])


def _error_bounds(
    source: float, scales: NDArray[np.float32], count: int, factors: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return bounds on |S f in float32 - S f| for any sum S of codes whose mean is a code."""
    one, elements, scale_in = np.float32(1), np.float32(count), np.float32(source)
    in_float32 = (one / elements * (scale_in / scales), scale_in / (scales * elements))
    errors = np.max([np.abs(f.astype(np.float64) - factors) for f in in_float32], axis=0)
    largest = np.minimum(255 * count, 256 / factors)  # beyond it, all formulas saturate
    bounds: NDArray[np.float64] = largest * errors + _rounding(factors * count)
    return bounds


def _rounding(ratio: Any) -> Any:
    """Return a bound on the sum of the rounding errors of the longest formula, XNNPACK's.

    It has two products of up to 128 codes times the ratio, their difference with z', and the sum,
    which is a code. ONNX Runtime's formulas have one product of up to 255.

    Args:
        ratio: Scale of the input / scale of the mean, one or many.
    """
    return 2 * _half_ulp(128 * ratio) + _half_ulp(128 * ratio + 128) + _half_ulp(255.0)


def _half_ulp(value: Any) -> Any:
    return np.spacing(np.float32(value)).astype(np.float64) / 2
