"""Round the weights and biases of all int8 layers as a recipe says.

Input: a `Plan`, a recipe and calibration images. Output: `LayerWeights` on their integer grids, by
operator name.

    weights to nearest or by GPTQ -> bias correction -> learned rounding (`best`) -> bias grid

Invariant: the plan and its float network stay as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobiledeploy.quantization.bias_correction import round_with_bias_correction
from mobiledeploy.quantization.fake_quantize import LayerWeights
from mobiledeploy.quantization.gptq import gptq
from mobiledeploy.quantization.learned_rounding import learn_rounding
from mobiledeploy.quantization.weight_rounding import round_bias, round_to_nearest
from mobiledeploy.stages import evenly_spread
from mobiledeploy.utils.progress import step

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mobiledeploy.quantization.plan import Plan
    from mobiledeploy.stages import QuantRecipe

# Images of 224x224 for bias correction of weights rounded to nearest; more of smaller ones.
_CORRECTION_IMAGES = 32


def round_layers(
    plan: Plan, recipe: QuantRecipe, images: NDArray[np.float32], *, alone: bool = False
) -> dict[str, LayerWeights]:
    """Return every int8 layer's weight and bias on their grids, by operator name.

    Args:
        plan: The network, its encodings and scales.
        recipe: How weights are rounded.
        images: Calibration images, (N, C, H, W).
        alone: Round each layer as if it were the only int8 layer; then nothing is learned.
    """
    if recipe.rounding == "nearest":  # images are needed for bias correction only
        count = _CORRECTION_IMAGES * max(1, 224**2 // images.shape[-1] ** 2)
        images = images[evenly_spread(len(images), count)]
    with step("Rounding weights, each layer alone" if alone else "Rounding weights"):
        rounding = round_to_nearest if recipe.rounding == "nearest" else gptq
        rounded = round_with_bias_correction(plan, images, rounding, alone=alone)
    if recipe.rounding == "learned" and not alone:
        rounded = learn_rounding(plan, images, rounded)
    input_scales = {op.name: plan.input_scale(op) for op in plan.layers}
    return {
        name: LayerWeights(
            layer.weight, round_bias(layer.bias, plan.scales[name], input_scales[name])
        )
        for name, layer in rounded.items()
    }
