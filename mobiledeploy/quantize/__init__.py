"""One int8 network out of a folded float one.

    trace ─▶ observe ─▶ choose encodings ─▶ round weights and biases ─▶ PT2E

`learn_factors` improves the float network beforehand, for what int8 does to it.

In: a `FoldedModel` and a `CalibrationSet`. Out: a `QuantizedModel`, whose program is the only int8
network there is; ONNX and `.pte` are encodings of it, and `reference` says what it computes.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

from mobiledeploy.errors import ExportError
from mobiledeploy.graph import clamp_of, module_of, weight_and_bias
from mobiledeploy.progress import step
from mobiledeploy.quantize.factors import learn_factors
from mobiledeploy.quantize.float_layers import float_units, require_layers
from mobiledeploy.quantize.keep_float import choose_float_layers
from mobiledeploy.quantize.prepare import plan, require_requantizable, round_parameters
from mobiledeploy.quantize.quantizer import MobileNetQuantizer
from mobiledeploy.quiet import quietly
from mobiledeploy.single_thread import on_one_thread
from mobiledeploy.types import Encoding, QuantizedModel, QuantRecipe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.export import ExportedProgram
    from torch.fx import GraphModule

    from mobiledeploy.quantize.in_sequence import Rounded
    from mobiledeploy.quantize.prepare import Plan
    from mobiledeploy.types import CalibrationSet, FloatDemand, FoldedModel

__all__ = ["learn_factors", "quantize"]

_QUANTIZE = torch.ops.quantized_decomposed.quantize_per_tensor.default


@on_one_thread
def quantize(
    model: FoldedModel,
    calibration: CalibrationSet,
    recipe: QuantRecipe | None = None,
    demand: FloatDemand | None = None,
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
    recipe = replace(recipe or QuantRecipe(), factors=model.factors)
    planned = plan(model, calibration, recipe)
    nodes = [node for node in planned.traced.graph.nodes if node.name in planned.by_site]
    layers = {node.name: module_of(node) for node in nodes}
    if demand is not None:
        chosen = choose_float_layers(planned, recipe, calibration, demand)
        recipe = replace(recipe, float_layers=chosen)
    require_layers(planned.units, recipe)
    floating = float_units(planned.units, recipe.float_layers)
    require_requantizable(planned, floating)
    images = calibration.images
    rounded = round_parameters(planned, recipe, images, floating)
    with step("Converting to int8"):
        _write_parameters(planned, rounded)
        program = _convert(planned, floating, model.spec.input_shape)
    return QuantizedModel(
        spec=model.spec,
        program=program,
        encodings=planned.by_site,
        recipe=recipe,
        calibration_sha256=calibration.sha256,
        calibration_source=calibration.source,
        calibration_count=calibration.count,
        encodings_digest=_digest(program, planned.encodings),
        provenance=model.provenance,
        preprocessing=model.preprocessing,
        labels=model.labels,
        layers=layers,
    )


def _write_parameters(planned: Plan, rounded: Mapping[str, Rounded]) -> None:
    """Put every weight and bias onto its grid, in place."""
    for unit in planned.units:
        if unit.operator.name in rounded:
            weight, bias = weight_and_bias(planned.traced, unit)
            weight.copy_(rounded[unit.operator.name].weight)
            bias.copy_(rounded[unit.operator.name].bias)


def _convert(
    planned: Plan, floating: frozenset[str], input_shape: tuple[int, ...]
) -> ExportedProgram:
    """Run PT2E with everything given; return the program without the clamps it has made idle."""
    given = (planned.units, planned.encodings, planned.scales)
    in_float = {unit.output.name for unit in planned.units if unit.operator.name in floating}
    with quietly():
        prepared = prepare_pt2e(planned.traced, MobileNetQuantizer(*given, floating))
        converted = convert_pt2e(prepared)
        _drop_subsumed_clamps(converted, in_float)
        return torch.export.export(converted, (torch.zeros(input_shape),))


def _drop_subsumed_clamps(converted: GraphModule, in_float: set[str]) -> None:
    """Remove every ReLU, ReLU6 or clamp whose bounds lie outside what its encoding can say.

    Those that compute in float stay: what reads them may not be quantized. So does a clamp in a
    residual stream whose other tensors reach further: their encoding does not perform it.
    """
    for node in list(converted.graph.nodes):
        bounds = clamp_of(node)
        if node.name in in_float or bounds is None:
            continue
        (user,) = node.users
        if user.target is not _QUANTIZE:
            raise ExportError(f"The activation {node.name} was not quantized.")
        _, scale, zero_point, *_ = user.args
        if Encoding(scale=scale, zero_point=zero_point).performs(bounds):
            node.replace_all_uses_with(node.args[0])
            converted.graph.erase_node(node)
    converted.recompile()


def _digest(program: ExportedProgram, encodings: Mapping[str, Encoding]) -> str:
    """Return the sha256 over all activation encodings and all quantized weights and biases."""
    digest = hashlib.sha256()
    for name, encoding in sorted(encodings.items()):
        digest.update(f"{name} {encoding.scale.hex()} {encoding.zero_point}\n".encode())
    for name, tensor in sorted(program.state_dict.items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()
