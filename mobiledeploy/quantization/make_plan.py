"""Choose the encodings of all activations and the scales of all weights.

    trace -> observe -> search ranges -> select encodings -> Plan

Input: a `FoldedModel`, calibration images, a recipe. Output: a `Plan`, the float network with the
encodings and scales that it will be quantized with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mobiledeploy.quantization.distillation import split_hold_out
from mobiledeploy.quantization.encoding_selection import select_encodings
from mobiledeploy.quantization.halved_images import halved
from mobiledeploy.quantization.mul_ranges import fit_mul_ranges, probe_muls
from mobiledeploy.quantization.range_search import search_factors
from mobiledeploy.quantization.ranges import narrow
from mobiledeploy.stages import evenly_spread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mobiledeploy.quantization.ranges import Ranges
    from mobiledeploy.stages import CalibrationSet, FoldedModel, QuantRecipe

from mobiledeploy.quantization.plan import Plan
from mobiledeploy.quantization.plan_builder import PlanBuilder

# Images that ranges are searched on: 16 of 224x224, more of smaller ones.
_SEARCH_PIXELS = 16 * 224**2
_LEAST_SEARCH_IMAGES, _MOST_SEARCH_IMAGES = 8, 128
# With fewer images, a hold-out set of every sixth is too small to tell two candidates apart.
_LEAST_FOR_HOLD_OUT = 96


def make_plan(
    model: FoldedModel, calibration: CalibrationSet, recipe: QuantRecipe, *, rough: bool = False
) -> Plan:
    """Choose all encodings and weight scales, with every operator in int8.

    Args:
        model: From `fold`, `equalize` or `learn_equalization`.
        calibration: Images.
        recipe: How ranges are chosen.
        rough: Search ranges on halved images, for a plan that learning starts from.

    Raises:
        ExportError: an operator has no int8 form.
        DataError: the calibration set is empty, or drives an activation to infinity or NaN.
    """
    builder = PlanBuilder.of(model, calibration)
    return _choose_ranges(builder, recipe, calibration.images, model.ranges, rough=rough)


def _choose_ranges(
    builder: PlanBuilder,
    recipe: QuantRecipe,
    images: NDArray[np.float32],
    learned: Ranges,
    *,
    rough: bool,
) -> Plan:
    """Return the plan with the ranges that the recipe asks for.

    Candidates are searched and learned ranges, each with and without refitted multiplications. The
    hold-out images choose among them; with too few images there is only one candidate.
    """
    if recipe.range_rule == "minmax":
        return builder.build(builder.narrowed(1.0))
    has_hold_out = len(images) >= _LEAST_FOR_HOLD_OUT
    hold_out, training = split_hold_out(len(images))
    training_images = images[training] if has_hold_out else images
    count = int(
        np.clip(_SEARCH_PIXELS // images.shape[-1] ** 2, _LEAST_SEARCH_IMAGES, _MOST_SEARCH_IMAGES)
    )
    search_images = training_images[evenly_spread(len(training_images), count)]
    looked_at = halved(search_images, builder.traced) if rough else search_images
    searched = builder.narrowed(search_factors(builder, looked_at))
    muls = probe_muls(builder.traced, builder.ops, search_images)
    if not has_hold_out:
        return builder.build(fit_mul_ranges(builder, muls, searched))
    learned = narrow(learned, dict.fromkeys(learned, 1.0), builder.least_widths)
    ranges = [searched, searched | learned] if learned else [searched]
    if muls.ops:
        ranges += [fit_mul_ranges(builder, muls, each) for each in ranges]
    candidates = [builder.build(each) for each in ranges]
    if len(candidates) == 1:
        return candidates[0]
    return select_encodings(candidates, images[hold_out], search_images)
