"""Post-training quantization: the int8 network from an equalized float network.

    trace -> observe -> choose encodings -> choose float layers -> round weights -> PT2E

Input: a `FoldedModel` and a `CalibrationSet`. Output: a `QuantizedModel`, whose program is the only
int8 network; ONNX and `.pte` artifacts are encodings of it.
Invariant: same model, images and recipe, same integers; `integer_reference` defines what the
network computes.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from mobiledeploy.errors import UsageError
from mobiledeploy.graph.fused_ops import weight_and_bias
from mobiledeploy.graph.nodes import module_of
from mobiledeploy.quantization.float_layers import require_layers
from mobiledeploy.quantization.make_plan import make_plan
from mobiledeploy.quantization.margin import smallest_margin
from mobiledeploy.quantization.mixed_precision import choose_float_layers
from mobiledeploy.quantization.pt2e import convert
from mobiledeploy.quantization.ranges import require_requantizable
from mobiledeploy.quantization.round_layers import round_layers
from mobiledeploy.stages import (
    CalibrationSet,
    Encoding,
    FoldedModel,
    QuantizedModel,
    QuantRecipe,
    recipe_of,
)
from mobiledeploy.utils.arguments import FOLD_FIRST, LOAD_IMAGES, require_instance
from mobiledeploy.utils.progress import step
from mobiledeploy.utils.threads import on_one_thread

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.export import ExportedProgram

    from mobiledeploy.quantization.fake_quantize import LayerWeights
    from mobiledeploy.quantization.mixed_precision import MixedPrecision
    from mobiledeploy.quantization.plan import Plan


@on_one_thread
def quantize(
    model: FoldedModel,
    calibration: CalibrationSet,
    recipe: QuantRecipe | str | None = None,
    mixed_precision: MixedPrecision | None = None,
) -> QuantizedModel:
    """Quantize a folded network to int8.

    Args:
        model: From `fold`, `equalize` or `learn_equalization`.
        calibration: Images, preprocessed as the network expects them.
        recipe: How to quantize, or the name of a preset in `RECIPES`; the default is `QuantRecipe`
            with the model's equalization.
        mixed_precision: Which layers compute in float; by default those that the recipe names.

    Raises:
        ExportError: an operator has no int8 form, or a layer's channels differ too much for int8.
        DataError: the calibration set is empty, or drives an activation to infinity or NaN.
        UsageError: the recipe asks for another equalization than the model has, or layers that are
            to be kept in float do not exist, or all layers are to be kept.
        GateError: no choice of float layers reaches the SQNR that is asked for.
    """
    require_instance(model, FoldedModel, "model", FOLD_FIRST)
    require_instance(calibration, CalibrationSet, "calibration", LOAD_IMAGES)
    recipe = recipe_of(recipe or QuantRecipe(equalization=model.equalization))
    _require_equalization(model, recipe)
    plan = make_plan(model, calibration, recipe)
    if mixed_precision is not None:
        chosen = choose_float_layers(plan, recipe, calibration, mixed_precision)
        recipe = replace(recipe, float_layers=chosen)
    require_layers(plan.ops, recipe)
    plan = plan.with_float_layers(recipe.float_layers)
    require_requantizable(plan)
    margin = smallest_margin(plan, model.info.input.app_preprocessing)
    rounded = round_layers(plan, recipe, calibration.images)
    encodings = {shared.name: plan.encodings[shared.name] for shared in plan.shared_encodings}
    modules = {
        node.name: module_of(node) for node in plan.traced.graph.nodes if node.name in encodings
    }
    with step("Converting to int8"):
        _write_weights(plan, rounded)
        program = convert(plan, model.info.input.folded_shape)
    return QuantizedModel(
        info=model.info,
        program=program,
        encodings=encodings,
        recipe=recipe,
        calibration_sha256=calibration.sha256,
        calibration_source=calibration.source,
        calibration_count=calibration.count,
        encodings_digest=_digest(program, plan.encodings),
        margin=margin,
        layers=modules,
    )


def _require_equalization(model: FoldedModel, recipe: QuantRecipe) -> None:
    """Raise unless the model was rescaled as the recipe says."""
    if model.equalization != recipe.equalization:
        raise UsageError(
            f"The recipe asks for equalization {recipe.equalization!r}; the model has"
            f" {model.equalization!r}.",
            remedy="Call equalize or learn_equalization first, or set"
            f" equalization={model.equalization!r} in the recipe.",
        )


def _write_weights(plan: Plan, rounded: Mapping[str, LayerWeights]) -> None:
    """Write rounded weights and biases into the traced network, in place."""
    for op in plan.ops:
        if op.name in rounded:
            weight, bias = weight_and_bias(plan.traced, op)
            weight.copy_(rounded[op.name].weight)
            bias.copy_(rounded[op.name].bias)


def _digest(program: ExportedProgram, encodings: Mapping[str, Encoding]) -> str:
    """Return the sha256 over all activation encodings and all quantized weights and biases."""
    digest = hashlib.sha256()
    for name, encoding in sorted(encodings.items()):
        digest.update(f"{name} {encoding.scale.hex()} {encoding.zero_point}\n".encode())
    for name, tensor in sorted(program.state_dict.items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()
