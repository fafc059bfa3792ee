"""One int8 network out of a folded float one.

    trace ─▶ observe ─▶ choose encodings ─▶ round weights and biases ─▶ PT2E

In: a `FoldedModel` and a `CalibrationSet`. Out: a `QuantizedModel`, whose program is the only int8
network there is; ONNX and `.pte` are encodings of it, and `reference` says what it computes.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import torch
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

from mobiledeploy.errors import ExportError
from mobiledeploy.graph import module_of, weight_and_bias
from mobiledeploy.progress import step
from mobiledeploy.quantize.prepare import plan, round_parameters
from mobiledeploy.quantize.quantizer import MobileNetQuantizer
from mobiledeploy.quiet import quietly
from mobiledeploy.single_thread import on_one_thread
from mobiledeploy.types import QuantizedModel, QuantRecipe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.export import ExportedProgram
    from torch.fx import GraphModule

    from mobiledeploy.quantize.in_sequence import Rounded
    from mobiledeploy.quantize.prepare import Plan
    from mobiledeploy.types import CalibrationSet, Encoding, FoldedModel

__all__ = ["quantize"]

aten = torch.ops.aten
_QUANTIZE = torch.ops.quantized_decomposed.quantize_per_tensor.default


@on_one_thread
def quantize(
    model: FoldedModel, calibration: CalibrationSet, recipe: QuantRecipe | None = None
) -> QuantizedModel:
    """Quantize a folded network to int8.

    Args:
        model: Without BatchNorm.
        calibration: Images, preprocessed as the network expects them.
        recipe: How; the default is `QuantRecipe()`.

    Raises:
        ExportError: the network holds an operator without an int8 form.
        DataError: the calibration set is empty, or drives an activation to infinity or NaN.
    """
    recipe = recipe or QuantRecipe()
    planned = plan(model, calibration, recipe)
    nodes = [node for node in planned.traced.graph.nodes if node.name in planned.by_site]
    layers = {node.name: module_of(node) for node in nodes}
    rounded = round_parameters(planned, recipe, np.concatenate(calibration.batches))
    with step("Converting to int8"):
        _write_parameters(planned, rounded)
        program = _convert(planned, model.spec.input_shape)
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


def _convert(planned: Plan, input_shape: tuple[int, ...]) -> ExportedProgram:
    """Run PT2E with everything given; return the program without the clamps it has made idle."""
    quantizer = MobileNetQuantizer(planned.units, planned.encodings, planned.scales)
    with quietly():
        prepared = prepare_pt2e(planned.traced, quantizer)
        converted = convert_pt2e(prepared)
        _drop_subsumed_clamps(converted)
        return torch.export.export(converted, (torch.zeros(input_shape),))


def _drop_subsumed_clamps(converted: GraphModule) -> None:
    """Remove every ReLU, ReLU6 or clamp whose bounds lie outside what its encoding can say."""
    for node in list(converted.graph.nodes):
        if node.target not in (aten.relu.default, aten.hardtanh.default):
            continue
        (user,) = node.users
        if user.target is not _QUANTIZE:
            raise ExportError(f"The activation {node.name} was not quantized.")
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
