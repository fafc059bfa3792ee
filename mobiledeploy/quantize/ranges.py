"""From what calibration saw to one encoding per site.

real = (q - z) * s,  s = (high - low) / 255,  z = round(-128 - low / s)

Invariants: real zero is an integer; an encoding never reaches beyond the clamp of its site, so
saturation performs the clamp; the logits keep their full range (clipped logits tie); and wherever two
runtimes compute an operator by different formulas, the scale is one at which the formulas agree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mobiledeploy.types import Encoding

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from mobiledeploy.observe import Observed
    from mobiledeploy.graph import Site, Unit
    from mobiledeploy.types import Preprocessing, QuantRecipe

_LOGIT_HEADROOM = 1.1
_HALF_STEP_MARGIN = 1e-3


def choose_encodings(
    units: Sequence[Unit],
    sites: Sequence[Site],
    observed: Mapping[str, Observed],
    recipe: QuantRecipe,
    preprocessing: Preprocessing,
) -> dict[str, Encoding]:
    """Return the encoding of every site, by site name.

    Sites come in topological order: the scale of a pooled tensor depends on that of its input.
    """
    site_of = {node: site for site in sites for node in site.nodes}
    pooled = {site_of[u.output].name: site_of[u.activations[0]].name for u in units if _is_pool(u)}
    before_hardswish = {
        site_of[unit.activations[0]].name for unit in units if unit.kind == "hardswish"
    }
    logits = site_of[units[-1].output].name
    source = sites[0].name
    encodings: dict[str, Encoding] = {}
    for site in sites:
        seen = [observed[node.name] for node in site.nodes]
        minima = np.min([s.minima.min(1) for s in seen], axis=0)
        maxima = np.max([s.maxima.max(1) for s in seen], axis=0)
        low, high = _range_of(minima, maxima, recipe, site.clamp)
        if site.name == source:
            encodings[site.name] = encode_input(preprocessing)
        elif site.name == logits:
            low, high = float(minima.min()), float(maxima.max())
            encodings[site.name] = encode(_LOGIT_HEADROOM * low, _LOGIT_HEADROOM * high)
        elif site.name in pooled:
            encodings[site.name] = encode_pooled(low, high, encodings[pooled[site.name]])
        elif site.name in before_hardswish:
            encodings[site.name] = encode_before_hardswish(high)
        else:
            encodings[site.name] = encode(low, high)
    return encodings


def encode(low: float, high: float) -> Encoding:
    """Return the encoding that spans [low, high] and zero."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32(max(high - low, 1e-6) / 255))
    return Encoding(scale=scale, zero_point=int(np.clip(np.rint(-128 - low / scale), -128, 127)))


def encode_input(preprocessing: Preprocessing) -> Encoding:
    """Return the encoding of normalised 8-bit images: every pixel value that there is fits.

    XNNPACK multiplies by 1 / s where ONNX Runtime divides by s; the two differ in the last bit of a
    float, and so in the result where a value lies half-way between two integers. There are only 256
    values per channel: the scale is widened, by tenths of a per mille, until none of them is within
    a thousandth of a step of half-way.
    """
    pixels = np.arange(256, dtype=np.float32)[:, None] / np.float32(255)
    values = (pixels - np.float32(preprocessing.mean)) / np.float32(preprocessing.std)
    tightest = encode(float(values.min()), float(values.max())).scale
    candidates = [float(np.float32(tightest * (1 + step * 1e-4))) for step in range(200)]
    clear = (s for s in candidates if distance_from_half(values / s).min() > _HALF_STEP_MARGIN)
    scale = next(clear, None) or max(
        candidates, key=lambda s: float(distance_from_half(values / s).min())
    )
    zero_point = int(np.rint(-128 - float(values.min()) / scale))
    return Encoding(scale=scale, zero_point=zero_point)


def encode_pooled(low: float, high: float, source: Encoding) -> Encoding:
    """Return an encoding of the mean of a tensor encoded as `source`: s = s_source / integer.

    With an integer ratio the mean is an integer sum over an integer count, whatever formula a
    runtime uses for the rescaling (see `reference.pool`).
    """
    wanted = encode(low, high)
    ratio = max(1, int(source.scale / wanted.scale))
    scale = float(np.float32(source.scale / ratio))
    zero_point = int(np.clip(np.rint(-128 - min(low, 0.0) / scale), -128, 127))
    return Encoding(scale=scale, zero_point=zero_point)


def encode_before_hardswish(high: float) -> Encoding:
    """Return the encoding of a hard-swish's input: low is -3, exactly, and 3 a whole number of steps.

    Below -3 hard-swish is zero, so nothing is lost there; and read with scale s / 6 and zero-point
    -128, the same integers are hard-sigmoid, clamped at 1.
    """
    steps_to_zero = max(1, int(3 * 255 / (max(high, 0.0) + 3)))
    return Encoding(scale=float(np.float32(3 / steps_to_zero)), zero_point=steps_to_zero - 128)


def distance_from_half(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return how far each value lies from the nearest k + 1/2, in 0 to 1/2."""
    return np.abs(values - np.floor(values) - 0.5)


def _range_of(
    minima: NDArray[np.float32],
    maxima: NDArray[np.float32],
    recipe: QuantRecipe,
    clamp: tuple[float, float],
) -> tuple[float, float]:
    """Return the range that the recipe's rule makes of the images' extremes, inside the clamp."""
    if recipe.range_rule == "minmax":
        low, high = minima.min(), maxima.max()
    else:
        low, high = minima.mean(), maxima.mean()
    return max(float(low), clamp[0]), min(float(high), clamp[1])


def _is_pool(unit: Unit) -> bool:
    return unit.kind == "pool"
