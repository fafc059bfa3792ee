"""From what calibration saw to one encoding per site.

real = (q - z) * s,  s = (high - low) / 255,  z = round(-128 - low / s)

Invariants: real zero is an integer; an encoding never reaches beyond the clamp of its site, so
saturation performs the clamp (but in a residual stream that other tensors take further: there the
clamp stays, at one of the codes); the logits keep their full range (clipped logits tie); and
wherever two runtimes compute an operator by different formulas, the scale is one at which the
formulas agree.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.errors import ExportError
from mobiledeploy.graph.aten_graph import weight_and_bias
from mobiledeploy.network import Encoding
from mobiledeploy.quantization.weight_rounding import weight_scales

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from torch.fx import GraphModule

    from mobiledeploy.graph.aten_graph import FusedOp, SharedEncoding
    from mobiledeploy.network import ActivationStats, Preprocessing

_HALF_STEP_MARGIN = 1e-3
# Three roundings of a float32 below 256.
_FLOAT32_MARGIN = 4e-5
_LEAST_SCALE = 1e-6 / 255
# Runtimes refuse to multiply by 256 and more when they requantize.
REFUSED_REQUANTIZATION = 256.0
_LARGEST_REQUANTIZATION = 128.0


def choose_encodings(
    ops: Sequence[FusedOp],
    shared_encodings: Sequence[SharedEncoding],
    ranges: Mapping[str, tuple[float, float]],
    preprocessing: Preprocessing,
) -> dict[str, Encoding]:
    """Return the encoding of every site, by site name.

    Sites come in topological order: the scale of a pooled tensor depends on that of its input.
    """
    shared_encoding_of = {node: shared for shared in shared_encodings for node in shared.nodes}
    pools = {shared_encoding_of[u.output].name: u for u in ops if u.kind == "pool"}
    products = {shared_encoding_of[u.output].name: u for u in ops if u.kind == "multiply"}
    hardswished = {
        shared_encoding_of[u.output].name: shared_encoding_of[u.activations[0]].name
        for u in ops
        if u.kind == "hardswish"
    }
    before_hardswish = set(hardswished.values())
    pixels = shared_encodings[0].name
    encodings: dict[str, Encoding] = {}
    for shared in shared_encodings:
        low, high = ranges[shared.name]
        if shared.name == pixels:
            encodings[shared.name] = encode_input(preprocessing)
        elif shared.name in pools:
            (source_node,) = pools[shared.name].activations
            height, width = source_node.meta["val"].shape[-2:]
            source = encodings[shared_encoding_of[source_node].name]
            encodings[shared.name] = encode_pooled(low, high, source, height * width)
        elif shared.name in products:
            a, b = (
                encodings[shared_encoding_of[node].name]
                for node in products[shared.name].activations
            )
            encodings[shared.name] = encode_product(low, high, a, b)
        elif shared.name in hardswished:
            # alone, it spans what its input can make; in a residual stream, what the stream needs
            span = None if len(shared.nodes) == 1 else (low, high)
            encodings[shared.name] = encode_hardswish(encodings[hardswished[shared.name]], span)
        elif shared.name in before_hardswish:
            encodings[shared.name] = encode_before_hardswish(high)
        else:
            bounds = [bound for op in ops if op.output in shared.nodes for bound in op.clamp or ()]
            encodings[shared.name] = encode_around(low, high, bounds)
    return encodings


def learnable_encodings(
    ops: Sequence[FusedOp], shared_encodings: Sequence[SharedEncoding]
) -> frozenset[str]:
    """Return the sites whose range nobody dictates.

    Neither the input's, which pixels fill, nor the logits', which must not be clipped; nor where
    the scale follows from other scales: on both sides of a hard-swish, behind a product or a pool.
    """
    shared_encoding_of = {node: shared.name for shared in shared_encodings for node in shared.nodes}
    dictated = {shared_encodings[0].name, shared_encodings[-1].name}
    for op in ops:
        if op.kind in {"hardswish", "multiply", "pool"}:
            dictated.add(shared_encoding_of[op.output])
        if op.kind == "hardswish":
            dictated.add(shared_encoding_of[op.activations[0]])
    return frozenset(shared.name for shared in shared_encodings if shared.name not in dictated)


def encode(low: float, high: float, least_scale: float = _LEAST_SCALE) -> Encoding:
    """Return the encoding that spans [low, high] and zero, at no smaller scale than this."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32(max((high - low) / 255, least_scale)))
    return Encoding(scale=scale, zero_point=int(np.clip(np.rint(-128 - low / scale), -128, 127)))


def encode_around(low: float, high: float, bounds: Sequence[float]) -> Encoding:
    """Return the encoding that spans [low, high], in which a clamp at a bound inside is a code.

    Of a residual stream: where a ReLU6 goes into it, 6 is clamped at by its code. Half-way between
    two codes, it would depend on who rounds it.
    """
    inside = [bound for bound in bounds if low < bound < high]
    return _clear_of_half(encode(low, high), np.array(inside)) if inside else encode(low, high)


def encode_input(preprocessing: Preprocessing) -> Encoding:
    """Return the encoding of normalised 8-bit images: every pixel value that there is fits.

    XNNPACK multiplies by 1 / s where ONNX Runtime divides by s; the two differ in the last bit of a
    float, and so in the result where a value lies half-way between two integers. There are only 256
    values per channel: the scale is widened, by tenths of a per mille, until none of them is within
    a thousandth of a step of half-way.
    """
    pixels = np.arange(256, dtype=np.float32)[:, None] / np.float32(255)
    mean = np.array(preprocessing.mean, np.float32)
    values = ((pixels - mean) / np.array(preprocessing.std, np.float32)).astype(np.float32)
    return _clear_of_half(encode(float(values.min()), float(values.max())), values)


def encode_hardswish(source: Encoding, span: tuple[float, float] | None = None) -> Encoding:
    """Return the encoding of hard-swish of a tensor encoded as `source`.

    XNNPACK computes a table in float, ONNX Runtime multiplies integers. Both round the same 256
    real numbers: at a scale where none of them is near half-way, both round them to the same codes.

    Args:
        source: Of the input; what lies outside of it was clipped there and is not seen here.
        span: What to encode; by default the 256 results, none of which is clipped a second time.
    """
    codes: NDArray[np.float64] = np.arange(-128, 128, dtype=np.float64)
    x = (codes - source.zero_point) * source.scale
    results = x * np.clip(x + 3, 0, 6) / 6
    low, high = span or (float(results.min()), float(results.max()))
    return _clear_of_half(encode(low, high), results)


def encode_product(low: float, high: float, a: Encoding, b: Encoding) -> Encoding:
    """Return the encoding of the product of two tensors, for example of an SE gate.

    Runtimes multiply the integers and then by a float; how they form it differs in the last bit.
    The scale is one at which no product of two codes is so near to half-way that it matters.
    """
    codes: NDArray[np.float64] = np.arange(-128, 128, dtype=np.float64)
    products = np.unique(np.outer(codes - a.zero_point, codes - b.zero_point))
    step = a.scale * b.scale
    wanted = encode(low, high, step / _LARGEST_REQUANTIZATION)
    return _clear_of_half(wanted, products * step, _FLOAT32_MARGIN)


def _clear_of_half(
    encoding: Encoding, values: NDArray[np.floating[Any]], margin: float = _HALF_STEP_MARGIN
) -> Encoding:
    """Widen a scale, by tenths of a per mille, until no value lies near half-way between codes.

    Where no scale in reach is clear by the margin, the clearest is taken.
    """
    best, clearance = encoding.scale, -1.0
    for i in range(200):
        scale = float(np.float32(encoding.scale * (1 + i * 1e-4)))
        steps = values / scale
        distance = float(_distance_from_half(steps[np.abs(steps) < 257]).min())
        if distance > clearance:
            best, clearance = scale, distance
        if clearance > margin:
            break
    return Encoding(scale=best, zero_point=encoding.zero_point)


def encode_pooled(low: float, high: float, source: Encoding, count: int) -> Encoding:
    """Return the encoding of the mean of `count` elements of a tensor that is encoded as `source`.

    Calibration may have seen means far beyond what `source` clips to. No mean of its codes lies
    there, and none needs a coarser scale.
    """
    least = source.scale / _LARGEST_REQUANTIZATION
    wanted = encode(low, high, least)
    if wanted.scale > source.scale:
        wanted = encode(max(low, source.low), min(high, source.high), least)
    scale = scale_of_mean(wanted.scale, source.scale, count)
    return replace(wanted, scale=scale)


def encode_before_hardswish(high: float) -> Encoding:
    """Return the encoding of a hard-swish's input: from -3, with 3 a whole number of steps.

    Below -3 hard-swish is zero, so nothing is lost there; and read with scale s / 6 and zero-point
    -128, the same integers are hard-sigmoid, clamped at 1.
    """
    steps_to_zero = max(1, int(3 * 255 / (max(high, 0.0) + 3)))
    return Encoding(scale=float(np.float32(3 / steps_to_zero)), zero_point=steps_to_zero - 128)


def _distance_from_half(values: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Return how far each value lies from the nearest k + 1/2, in 0 to 1/2."""
    distance: NDArray[np.floating[Any]] = np.abs(values - np.floor(values) - np.float32(0.5))
    return distance


def widest_ranges(
    shared_encodings: Sequence[SharedEncoding], observed: Mapping[str, ActivationStats]
) -> dict[str, tuple[float, float]]:
    """Return, by site name, the range of everything that was seen, inside the site's clamp.

    The last site, the logits, has room for larger ones than were seen: clipped logits tie.
    """
    ranges = {}
    for shared in shared_encodings:
        seen = [observed[node.name] for node in shared.nodes]
        low = min(float(s.minima.min()) for s in seen)
        high = max(float(s.maxima.max()) for s in seen)
        if shared is shared_encodings[-1]:
            low, high = low * seen[0].margin, high * seen[0].margin
        ranges[shared.name] = (max(low, shared.clamp[0]), min(high, shared.clamp[1]))
    return ranges


def narrowed(
    ranges: Mapping[str, tuple[float, float]],
    factors: Mapping[str, float],
    least_widths: Mapping[str, float],
) -> dict[str, tuple[float, float]]:
    """Return the ranges, each multiplied by its factor, but none less wide than it has to be."""
    result = {}
    for name, (lowest, highest) in ranges.items():
        low, high = factors[name] * min(lowest, 0.0), factors[name] * max(highest, 0.0)
        missing = least_widths.get(name, 0.0) - (high - low)
        result[name] = (low, high + max(missing, 0.0))
    return result


def least_widths(
    traced: GraphModule,
    ops: Sequence[FusedOp],
    shared_encodings: Sequence[SharedEncoding],
    encodings: Mapping[str, Encoding],
) -> dict[str, float]:
    """Return, by site name, the width below which XNNPACK refuses the operator that writes it.

    It requantizes by s_x s_w / s_y, which has to be below 256. What comes near that is an output
    that calibration saw all but dead, or a channel whose weights are hundreds of times the others'.

    Args:
        traced: The float network.
        ops: Of it.
        shared_encodings: Of it.
        encodings: By node name, of ranges that nothing will widen.
    """
    shared_encoding_of = {node: shared.name for shared in shared_encodings for node in shared.nodes}
    widths: dict[str, float] = {}
    for op in ops:
        if op.has_weight:
            input_scale = encodings[op.activations[0].name].scale
            scales = weight_scales(*weight_and_bias(traced, op), input_scale)
            width = 255 * input_scale * float(scales.max()) / _LARGEST_REQUANTIZATION
            name = shared_encoding_of[op.output]
            widths[name] = max(width, widths.get(name, 0.0))
    return widths


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
