"""One int8 network out of a folded float one.

    trace ─▶ observe ─▶ choose encodings ─▶ round weights and biases ─▶ PT2E

In: a `FoldedModel` and a `CalibrationSet`. Out: a `QuantizedModel`, whose program is the only int8
network there is; ONNX and `.pte` are encodings of it, and `reference` says what it computes.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

from mobiledeploy.errors import ExportError
from mobiledeploy.observe import observe
from mobiledeploy.progress import step
from mobiledeploy.graph import find_sites, find_units, trace, weight_and_bias
from mobiledeploy.quantize.quantizer import MobileNetQuantizer
from mobiledeploy.quantize.ranges import choose_encodings
from mobiledeploy.quantize.weights import round_bias, round_weight, weight_scales
from mobiledeploy.quiet import quietly
from mobiledeploy.types import QuantizedModel, QuantRecipe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.export import ExportedProgram
    from torch.fx import GraphModule

    from mobiledeploy.graph import Unit
    from mobiledeploy.types import CalibrationSet, Encoding, FoldedModel

__all__ = ["quantize"]

aten = torch.ops.aten
_QUANTIZE = torch.ops.quantized_decomposed.quantize_per_tensor.default


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
    with step("Tracing the network"):
        traced = trace(model)
        units = find_units(traced)
        sites = find_sites(traced, units)
    observed = observe(traced, [node for site in sites for node in site.nodes], calibration)
    by_site = choose_encodings(units, sites, observed, recipe, model.preprocessing)
    encodings = {node.name: by_site[site.name] for site in sites for node in site.nodes}
    with step("Quantizing"):
        scales = _round_parameters(traced, units, encodings)
        program = _convert(traced, units, encodings, scales, model.spec.input_shape)
    return QuantizedModel(
        spec=model.spec,
        program=program,
        encodings=by_site,
        recipe=recipe,
        calibration_sha256=calibration.sha256,
        calibration_source=calibration.source,
        calibration_count=calibration.count,
        encodings_digest=_digest(program, encodings),
        int8_macs_share=1.0,
        provenance=model.provenance,
        preprocessing=model.preprocessing,
        labels=model.labels,
    )


def _round_parameters(
    traced: GraphModule, units: tuple[Unit, ...], encodings: Mapping[str, Encoding]
) -> dict[str, torch.Tensor]:
    """Put every weight and bias onto its grid, in place; return the weight scales by operator."""
    scales: dict[str, torch.Tensor] = {}
    for unit in units:
        if unit.has_weight:
            weight, bias = weight_and_bias(traced, unit)
            input_scale = encodings[unit.activations[0].name].scale
            scales[unit.operator.name] = grid = weight_scales(weight, bias, input_scale)
            weight.copy_(round_weight(weight, grid))
            bias.copy_(round_bias(bias, grid, input_scale))
    return scales


def _convert(
    traced: GraphModule,
    units: tuple[Unit, ...],
    encodings: Mapping[str, Encoding],
    scales: Mapping[str, torch.Tensor],
    input_shape: tuple[int, ...],
) -> ExportedProgram:
    """Run PT2E with everything given; return the program without the clamps it has made idle."""
    with quietly():
        prepared = prepare_pt2e(traced, MobileNetQuantizer(units, encodings, scales))
        converted = convert_pt2e(prepared)
        _drop_subsumed_clamps(converted)
        return torch.export.export(converted, (torch.zeros(input_shape),))


def _drop_subsumed_clamps(converted: GraphModule) -> None:
    """Remove every ReLU, ReLU6 or clamp whose bounds lie outside what its encoding can say."""
    for node in list(converted.graph.nodes):
        if node.target not in (
            aten.relu.default,
            aten.hardtanh.default,
            aten.hardtanh_.default,
            aten.relu_.default,
        ):
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
