"""One int8 network out of a folded float one.

    trace ─▶ observe ─▶ choose encodings ─▶ round weights and biases ─▶ PT2E

`learn_equalization` improves the float network beforehand, for what int8 does to it.

In: a `FoldedModel` and a `CalibrationSet`. Out: a `QuantizedModel`, whose program is the only int8
network there is; ONNX and `.pte` are encodings of it, and `reference` says what it computes.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from mobiledeploy.graph.aten_graph import module_of, weight_and_bias
from mobiledeploy.network import Encoding, QuantizedModel, QuantRecipe
from mobiledeploy.quantization.float_layers import float_ops, require_layers
from mobiledeploy.quantization.mixed_precision import choose_float_layers
from mobiledeploy.quantization.plan import plan, require_requantizable, round_parameters
from mobiledeploy.quantization.pt2e import convert
from mobiledeploy.utils.progress import step
from mobiledeploy.utils.threads import on_one_thread

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.export import ExportedProgram

    from mobiledeploy.network import CalibrationSet, FoldedModel
    from mobiledeploy.quantization.fake_quantize import Rounded
    from mobiledeploy.quantization.mixed_precision import MixedPrecision
    from mobiledeploy.quantization.plan import Plan


@on_one_thread
def quantize(
    model: FoldedModel,
    calibration: CalibrationSet,
    recipe: QuantRecipe | None = None,
    demand: MixedPrecision | None = None,
) -> QuantizedModel:
    """Quantize a folded network to int8.

    Args:
        model: Without BatchNorm.
        calibration: Images, preprocessed as the network expects them.
        recipe: How; the default is `QuantRecipe()`. Its factors are the model's, whatever it says.
        demand: Which layers should compute in float; by default those that the recipe names.

    Raises:
        ExportError: the network holds an operator without an int8 form, or a layer whose channels
            are too unlike for one.
        DataError: the calibration set is empty, or drives an activation to infinity or NaN.
        UsageError: layers should be float that the network does not have, or all of them.
        GateError: no choice of float layers reaches the SQNR that is demanded.
    """
    recipe = replace(recipe or QuantRecipe(), equalization=model.equalization)
    planned = plan(model, calibration, recipe)
    nodes = [node for node in planned.traced.graph.nodes if node.name in planned.by_shared_encoding]
    layers = {node.name: module_of(node) for node in nodes}
    if demand is not None:
        chosen = choose_float_layers(planned, recipe, calibration, demand)
        recipe = replace(recipe, float_layers=chosen)
    require_layers(planned.ops, recipe)
    floating = float_ops(planned.ops, recipe.float_layers)
    require_requantizable(planned, floating)
    images = calibration.images
    rounded = round_parameters(planned, recipe, images, floating)
    with step("Converting to int8"):
        _write_parameters(planned, rounded)
        program = convert(planned, floating, model.info.input.shape)
    return QuantizedModel(
        info=model.info,
        program=program,
        encodings=planned.by_shared_encoding,
        recipe=recipe,
        calibration_sha256=calibration.sha256,
        calibration_source=calibration.source,
        calibration_count=calibration.count,
        encodings_digest=_digest(program, planned.encodings),
        layers=layers,
    )


def _write_parameters(planned: Plan, rounded: Mapping[str, Rounded]) -> None:
    """Put every weight and bias onto its grid, in place."""
    for op in planned.ops:
        if op.operator.name in rounded:
            weight, bias = weight_and_bias(planned.traced, op)
            weight.copy_(rounded[op.operator.name].weight)
            bias.copy_(rounded[op.operator.name].bias)


def _digest(program: ExportedProgram, encodings: Mapping[str, Encoding]) -> str:
    """Return the sha256 over all activation encodings and all quantized weights and biases."""
    digest = hashlib.sha256()
    for name, encoding in sorted(encodings.items()):
        digest.update(f"{name} {encoding.scale.hex()} {encoding.zero_point}\n".encode())
    for name, tensor in sorted(program.state_dict.items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()
