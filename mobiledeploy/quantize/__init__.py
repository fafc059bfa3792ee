"""One int8 network out of a folded float one.

    trace ─▶ observe ─▶ choose encodings ─▶ round weights and biases ─▶ PT2E

In: a `FoldedModel` and a `CalibrationSet`. Out: a `QuantizedModel`, whose program is the only int8
network there is; ONNX and `.pte` are encodings of it, and `reference` says what it computes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

from mobiledeploy.errors import ExportError
from mobiledeploy.graph import find_sites, find_units, trace, weight_and_bias
from mobiledeploy.observe import observe
from mobiledeploy.progress import step
from mobiledeploy.quantize.in_sequence import round_in_sequence
from mobiledeploy.quantize.learned import learn
from mobiledeploy.quantize.quantizer import MobileNetQuantizer
from mobiledeploy.quantize.ranges import choose_encodings, least_widths, narrowed, widest_ranges
from mobiledeploy.quantize.rounding import round_to_cancel
from mobiledeploy.quantize.search import search_factors
from mobiledeploy.quantize.weights import round_bias, round_to_nearest, weight_scales
from mobiledeploy.quiet import quietly
from mobiledeploy.single_thread import on_one_thread
from mobiledeploy.types import QuantizedModel, QuantRecipe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch.export import ExportedProgram
    from torch.fx import GraphModule

    from mobiledeploy.graph import Site, Unit
    from mobiledeploy.types import CalibrationSet, Encoding, FoldedModel, Preprocessing

__all__ = ["quantize"]

aten = torch.ops.aten
# Images that ranges are judged on: 16 of 224x224, more of smaller ones.
_JUDGED_PIXELS = 16 * 224**2
_LEAST_JUDGED, _MOST_JUDGED = 8, 128
_CORRECTED = 32
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
    with step("Tracing the network"):
        traced = trace(model)
        units = find_units(traced)
        sites = find_sites(traced, units)
    observed = observe(traced, [node for site in sites for node in site.nodes], calibration)
    network = _Network(traced, units, sites, widest_ranges(sites, observed), model.preprocessing)
    network = network.held_to_runtimes()
    images = np.concatenate(calibration.batches)
    by_site = network.encode(_choose_factors(network, recipe, images))
    encodings = network.by_node(by_site)
    scales = _round_parameters(network, encodings, recipe, images)
    with step("Converting to int8"):
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
        provenance=model.provenance,
        preprocessing=model.preprocessing,
        labels=model.labels,
    )


@dataclass(frozen=True, slots=True)
class _Network:
    """What stays the same while encodings are being chosen."""

    traced: GraphModule
    units: tuple[Unit, ...]
    sites: tuple[Site, ...]
    widest: Mapping[str, tuple[float, float]]
    preprocessing: Preprocessing
    least_widths: Mapping[str, float] = field(default_factory=dict)

    def held_to_runtimes(self) -> _Network:
        """Return the network with the widths below which a runtime refuses an operator."""
        widest = self.by_node(self.encode({site.name: 1.0 for site in self.sites}))
        return replace(self, least_widths=least_widths(self.traced, self.units, self.sites, widest))

    def encode(self, factors: Mapping[str, float]) -> dict[str, Encoding]:
        """Return the encodings, by site name, of the widest ranges narrowed by these factors."""
        ranges = narrowed(self.widest, factors, self.least_widths)
        return choose_encodings(self.units, self.sites, ranges, self.preprocessing)

    def by_node(self, by_site: Mapping[str, Encoding]) -> dict[str, Encoding]:
        """Return the encoding of every node."""
        return {node.name: by_site[site.name] for site in self.sites for node in site.nodes}

    def weight_scales(self, encodings: Mapping[str, Encoding]) -> dict[str, torch.Tensor]:
        """Return the weight scales, by the name of the unit's operator."""
        scales = {}
        for unit in self.units:
            if unit.has_weight:
                input_scale = encodings[unit.activations[0].name].scale
                weight_and_its_bias = weight_and_bias(self.traced, unit)
                scales[unit.operator.name] = weight_scales(*weight_and_its_bias, input_scale)
        return scales


def _choose_factors(
    network: _Network, recipe: QuantRecipe, images: NDArray[np.float32]
) -> dict[str, float]:
    """Return how far each site's widest range is narrowed."""
    if recipe.range_rule == "minmax":
        return {site.name: 1.0 for site in network.sites}
    side = images.shape[-1]
    judged = images[: int(np.clip(_JUDGED_PIXELS // side**2, _LEAST_JUDGED, _MOST_JUDGED))]
    return search_factors(network.traced, network.units, network.sites, network.encode, judged)


def _round_parameters(
    network: _Network,
    encodings: Mapping[str, Encoding],
    recipe: QuantRecipe,
    images: NDArray[np.float32],
) -> dict[str, torch.Tensor]:
    """Put every weight and bias onto its grid, in place; return the weight scales by operator."""
    scales = network.weight_scales(encodings)
    given = (network.traced, network.units, encodings, scales)
    with step("Rounding weights"):
        rounding = round_to_nearest if recipe.rounding == "nearest" else round_to_cancel
        rounded = round_in_sequence(*given, images[:_CORRECTED], rounding)
    if recipe.rounding == "learned":
        rounded = learn(*given, images, rounded)
    for unit in network.units:
        if unit.has_weight:
            name, input_scale = unit.operator.name, encodings[unit.activations[0].name].scale
            weight, bias = weight_and_bias(network.traced, unit)
            weight.copy_(rounded[name].weight)
            bias.copy_(round_bias(rounded[name].bias, scales[name], input_scale))
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
