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

from mobiledeploy.graph import weight_and_bias
from mobiledeploy.quantize.pooling import scale_of_mean
from mobiledeploy.quantize.weights import weight_scales
from mobiledeploy.types import Encoding

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from torch.fx import GraphModule

    from mobiledeploy.graph import Site, Unit
    from mobiledeploy.types import Observed, Preprocessing

_HALF_STEP_MARGIN = 1e-3
# Three roundings of a float32 below 256.
_FLOAT32_MARGIN = 4e-5
_LEAST_SCALE = 1e-6 / 255
# Runtimes refuse to multiply by 256 and more when they requantize.
REFUSED_REQUANTIZATION = 256.0
_LARGEST_REQUANTIZATION = 128.0


def choose_encodings(
    units: Sequence[Unit],
    sites: Sequence[Site],
    ranges: Mapping[str, tuple[float, float]],
    preprocessing: Preprocessing,
) -> dict[str, Encoding]:
    """Return the encoding of every site, by site name.

    Sites come in topological order: the scale of a pooled tensor depends on that of its input.
    """
    site_of = {node: site for site in sites for node in site.nodes}
    pools = {site_of[u.output].name: u for u in units if u.kind == "pool"}
    products = {site_of[u.output].name: u for u in units if u.kind == "multiply"}
    hardswished = {
        site_of[u.output].name: site_of[u.activations[0]].name
        for u in units
        if u.kind == "hardswish"
    }
    before_hardswish = set(hardswished.values())
    pixels = sites[0].name
    encodings: dict[str, Encoding] = {}
    for site in sites:
        low, high = ranges[site.name]
        if site.name == pixels:
            encodings[site.name] = encode_input(preprocessing)
        elif site.name in pools:
            (source_node,) = pools[site.name].activations
            height, width = source_node.meta["val"].shape[-2:]
            source = encodings[site_of[source_node].name]
            encodings[site.name] = encode_pooled(low, high, source, height * width)
        elif site.name in products:
            a, b = (encodings[site_of[node].name] for node in products[site.name].activations)
            encodings[site.name] = encode_product(low, high, a, b)
        elif site.name in hardswished:
            # alone, it spans what its input can make; in a residual stream, what the stream needs
            span = None if len(site.nodes) == 1 else (low, high)
            encodings[site.name] = encode_hardswish(encodings[hardswished[site.name]], span)
        elif site.name in before_hardswish:
            encodings[site.name] = encode_before_hardswish(high)
        else:
            bounds = [
                bound for unit in units if unit.output in site.nodes for bound in unit.clamp or ()
            ]
            encodings[site.name] = encode_around(low, high, bounds)
    return encodings


def learnable_sites(units: Sequence[Unit], sites: Sequence[Site]) -> frozenset[str]:
    """Return the sites whose range nobody dictates.

    Neither the input's, which pixels fill, nor the logits', which must not be clipped; nor where
    the scale follows from other scales: on both sides of a hard-swish, behind a product or a pool.
    """
    site_of = {node: site.name for site in sites for node in site.nodes}
    dictated = {sites[0].name, sites[-1].name}
    for unit in units:
        if unit.kind in {"hardswish", "multiply", "pool"}:
            dictated.add(site_of[unit.output])
        if unit.kind == "hardswish":
            dictated.add(site_of[unit.activations[0]])
    return frozenset(site.name for site in sites if site.name not in dictated)


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
    sites: Sequence[Site], observed: Mapping[str, Observed]
) -> dict[str, tuple[float, float]]:
    """Return, by site name, the range of everything that was seen, inside the site's clamp.

    The last site, the logits, has room for larger ones than were seen: clipped logits tie.
    """
    ranges = {}
    for site in sites:
        seen = [observed[node.name] for node in site.nodes]
        low = min(float(s.minima.min()) for s in seen)
        high = max(float(s.maxima.max()) for s in seen)
        if site is sites[-1]:
            low, high = low * seen[0].margin, high * seen[0].margin
        ranges[site.name] = (max(low, site.clamp[0]), min(high, site.clamp[1]))
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
    units: Sequence[Unit],
    sites: Sequence[Site],
    encodings: Mapping[str, Encoding],
) -> dict[str, float]:
    """Return, by site name, the width below which XNNPACK refuses the operator that writes it.

    It requantizes by s_x s_w / s_y, which has to be below 256. What comes near that is an output
    that calibration saw all but dead, or a channel whose weights are hundreds of times the others'.

    Args:
        traced: The float network.
        units: Of it.
        sites: Of it.
        encodings: By node name, of ranges that nothing will widen.
    """
    site_of = {node: site.name for site in sites for node in site.nodes}
    widths: dict[str, float] = {}
    for unit in units:
        if unit.has_weight:
            input_scale = encodings[unit.activations[0].name].scale
            scales = weight_scales(*weight_and_bias(traced, unit), input_scale)
            width = 255 * input_scale * float(scales.max()) / _LARGEST_REQUANTIZATION
            name = site_of[unit.output]
            widths[name] = max(width, widths.get(name, 0.0))
    return widths
