"""What is decided before anything becomes int8: encodings, then weights and biases on their grids.

    trace ─▶ observe ─▶ choose encodings ─▶ round weights and biases

In: a `FoldedModel`, images, a recipe. Out: a `Plan` (the float network with its encodings), and the
rounded parameters. The float network stays as it is: `quantize` writes the parameters into it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from mobiledeploy.errors import ExportError
from mobiledeploy.graph.aten_graph import (
    find_fused_ops,
    find_shared_encodings,
    trace,
    weight_and_bias,
)
from mobiledeploy.graph.observers import observe_cached
from mobiledeploy.network import evenly_spread
from mobiledeploy.quantization.bias_correction import round_with_bias_correction
from mobiledeploy.quantization.distillation import split_hold_out
from mobiledeploy.quantization.encoding_selection import select_encodings
from mobiledeploy.quantization.encodings import (
    REFUSED_REQUANTIZATION,
    choose_encodings,
    least_widths,
    narrowed,
    widest_ranges,
)
from mobiledeploy.quantization.fake_quantize import Rounded
from mobiledeploy.quantization.float_layers import layer_name
from mobiledeploy.quantization.gptq import gptq
from mobiledeploy.quantization.learned_rounding import learn
from mobiledeploy.quantization.mul_ranges import WIDTHS, MulRanges, find_mul_ranges
from mobiledeploy.quantization.range_search import search_factors
from mobiledeploy.quantization.weight_rounding import round_bias, round_to_nearest, weight_scales
from mobiledeploy.utils.progress import step

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import torch
    from numpy.typing import NDArray
    from torch.fx import GraphModule

    from mobiledeploy.graph.aten_graph import FusedOp, SharedEncoding
    from mobiledeploy.network import (
        ActivationStats,
        CalibrationSet,
        Encoding,
        FoldedModel,
        Preprocessing,
        QuantRecipe,
    )

# Images that ranges are searched on: 16 of 224x224, more of smaller ones.
_SEARCHED_PIXELS = 16 * 224**2
_LEAST_SEARCHED, _MOST_SEARCHED = 8, 128
_CORRECTED = 32  # images of 224x224, or more of smaller ones: `fast` corrects biases with them
_ENOUGH_TO_HOLD_OUT = 96  # images; of fewer, those left to judge do not tell two choices apart


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The float network, and how its activations and weights will be encoded.

    Attributes:
        traced: The float network.
        ops: Of it.
        observed: What calibration saw of its activations, by node name.
        by_site: Encodings by the name of their site.
        encodings: The same by node name.
        scales: Of the weights, by the name of the unit's operator.
    """

    traced: GraphModule
    ops: tuple[FusedOp, ...]
    observed: Mapping[str, ActivationStats]
    by_shared_encoding: Mapping[str, Encoding]
    encodings: Mapping[str, Encoding]
    scales: Mapping[str, torch.Tensor]


def plan(model: FoldedModel, calibration: CalibrationSet, recipe: QuantRecipe) -> Plan:
    """Choose all encodings and scales.

    Raises:
        ExportError: the network holds an operator without an int8 form.
        DataError: the calibration set is empty, or drives an activation to infinity or NaN.
    """
    with step("Tracing the network"):
        traced = trace(model)
        ops = find_fused_ops(traced)
        shared_encodings = find_shared_encodings(traced, ops)
    nodes = [node for shared in shared_encodings for node in shared.nodes]
    observed = observe_cached(model, traced, nodes, calibration)
    network = _Network(
        traced,
        ops,
        shared_encodings,
        widest_ranges(shared_encodings, observed),
        model.info.preprocessing,
    )
    network = network.held_to_runtimes()
    by_shared_encoding = _choose_encodings(network, recipe, calibration.images, model.ranges)
    encodings = network.by_node(by_shared_encoding)
    return Plan(
        traced=traced,
        ops=ops,
        observed=observed,
        by_shared_encoding=by_shared_encoding,
        encodings=encodings,
        scales=network.weight_scales(encodings),
    )


def round_parameters(
    plan: Plan,
    recipe: QuantRecipe,
    images: NDArray[np.float32],
    floating: Collection[str] = (),
    *,
    alone: bool = False,
) -> dict[str, Rounded]:
    """Return every int8 layer's weight and bias on their grids, by the name of its operator.

    Args:
        plan: What was chosen.
        recipe: How weights are rounded.
        images: Of the calibration, (N, C, H, W).
        floating: Names of the operators of the units that compute in float.
        alone: Round each layer as if it alone were int8; nothing is learned then.
    """
    given = (plan.traced, plan.ops, plan.encodings, plan.scales)
    if recipe.rounding == "nearest":  # only biases ask for images
        some = _CORRECTED * max(1, 224**2 // images.shape[-1] ** 2)
        images = images[evenly_spread(len(images), some)]
    with step("Rounding weights, each layer alone" if alone else "Rounding weights"):
        rounding = round_to_nearest if recipe.rounding == "nearest" else gptq
        rounded = round_with_bias_correction(*given, images, rounding, floating, alone=alone)
    if recipe.rounding == "learned" and not alone:
        rounded = learn(*given, images, rounded)
    input_scales = {
        op.operator.name: plan.encodings[op.activations[0].name].scale for op in plan.ops
    }
    return {
        name: Rounded(r.weight, round_bias(r.bias, plan.scales[name], input_scales[name]))
        for name, r in rounded.items()
    }


def require_requantizable(plan: Plan, floating: Collection[str]) -> None:
    """See that XNNPACK will load the network; no range is wide enough where it is given.

    Args:
        plan: What was chosen.
        floating: Names of the operators of the units that compute in float.

    Raises:
        ExportError: it will not; all layers that it will refuse are named.
    """
    refused = []
    for op in plan.ops:
        if op.has_weight and op.operator.name not in floating:
            source = plan.encodings[op.activations[0].name]
            sums = source.scale * float(plan.scales[op.operator.name].max())
            if sums >= REFUSED_REQUANTIZATION * plan.encodings[op.output.name].scale:
                refused.append(layer_name(op))
    if refused:
        raise ExportError(
            f"{', '.join(refused)} cannot be int8: the scale of the sums there is"
            f" {REFUSED_REQUANTIZATION:g} times the output's or more, which XNNPACK refuses.",
            remedy="Look there, or in front, for a channel whose weights are thousands of times the"
            " others', perhaps because its BatchNorm's variance is nearly zero; or keep them in"
            f" float: --keep-float {','.join(refused)}.",
        )


@dataclass(frozen=True, slots=True)
class _Network:
    """What stays the same while encodings are being chosen."""

    traced: GraphModule
    ops: tuple[FusedOp, ...]
    shared_encodings: tuple[SharedEncoding, ...]
    widest: Mapping[str, tuple[float, float]]
    preprocessing: Preprocessing
    least_widths: Mapping[str, float] = field(default_factory=dict)

    def held_to_runtimes(self) -> _Network:
        """Return the network with the widths below which a runtime refuses an operator.

        They travel on: what is widened is read at a coarser scale.
        """
        held, widest = self, self.widest_encodings()
        for _ in self.ops:
            widths = least_widths(self.traced, self.ops, self.shared_encodings, widest)
            held = replace(self, least_widths=widths)
            before, widest = widest, held.widest_encodings()
            if widest == before:
                break
        return held

    def widest_encodings(self) -> dict[str, Encoding]:
        """Return the encodings of all that calibration saw, by node name."""
        return self.by_node(
            self.encode(self.narrowed({shared.name: 1.0 for shared in self.shared_encodings}))
        )

    def narrowed(self, factors: Mapping[str, float]) -> dict[str, tuple[float, float]]:
        """Return the widest ranges multiplied by these factors, by site name."""
        return narrowed(self.widest, factors, self.least_widths)

    def encode(self, ranges: Mapping[str, tuple[float, float]]) -> dict[str, Encoding]:
        """Return the encodings of these ranges, by site name."""
        return choose_encodings(self.ops, self.shared_encodings, ranges, self.preprocessing)

    def by_node(self, by_shared_encoding: Mapping[str, Encoding]) -> dict[str, Encoding]:
        """Return the encoding of every node."""
        return {
            node.name: by_shared_encoding[shared.name]
            for shared in self.shared_encodings
            for node in shared.nodes
        }

    def suited(
        self, products: MulRanges, ranges: Mapping[str, tuple[float, float]]
    ) -> dict[str, tuple[float, float]]:
        """Return the ranges by site name, the products' suited to what they are made of."""
        made = {op.output for op in products.ops}
        names = {
            node: shared.name
            for shared in self.shared_encodings
            for node in shared.nodes
            if node in made
        }
        tried = []
        for width in WIDTHS if names else ():
            at_width = self.narrowed(dict.fromkeys(self.widest, width))
            tried.append({**ranges, **{name: at_width[name] for name in names.values()}})
        best = products.best([self.by_node(self.encode(each)) for each in tried])
        chosen = {names[node]: tried[number][names[node]] for node, number in best.items()}
        return {**ranges, **chosen}

    def weight_scales(self, encodings: Mapping[str, Encoding]) -> dict[str, torch.Tensor]:
        """Return the weight scales, by the name of the unit's operator."""
        scales = {}
        for op in self.ops:
            if op.has_weight:
                input_scale = encodings[op.activations[0].name].scale
                weight_and_its_bias = weight_and_bias(self.traced, op)
                scales[op.operator.name] = weight_scales(*weight_and_its_bias, input_scale)
        return scales


def _choose_encodings(
    network: _Network,
    recipe: QuantRecipe,
    images: NDArray[np.float32],
    learned: Mapping[str, tuple[float, float]],
) -> dict[str, Encoding]:
    """Return the encodings by site name, as the images that judge like them best.

    Ranges are searched or learned; a product's is searched like all others, or suited to what the
    product is made of.
    """
    if recipe.range_rule == "minmax":
        return network.encode(
            network.narrowed({shared.name: 1.0 for shared in network.shared_encodings})
        )
    side = images.shape[-1]
    asked = len(images) >= _ENOUGH_TO_HOLD_OUT
    others = images[split_hold_out(len(images))[1]] if asked else images
    some = int(np.clip(_SEARCHED_PIXELS // side**2, _LEAST_SEARCHED, _MOST_SEARCHED))
    shown = others[evenly_spread(len(others), some)]
    factors = search_factors(
        network.traced,
        network.ops,
        network.shared_encodings,
        lambda factors: network.encode(network.narrowed(factors)),
        shown,
    )
    products = find_mul_ranges(network.traced, network.ops, shown)
    searched = network.narrowed(factors)
    if not asked:
        return network.encode(network.suited(products, searched))
    learned = narrowed(learned, dict.fromkeys(learned, 1.0), network.least_widths)
    ranges = [searched, searched | learned] if learned else [searched]
    if products.ops:
        ranges += [network.suited(products, each) for each in ranges]
    choices = [network.encode(each) for each in ranges]
    if len(choices) == 1:
        return choices[0]
    by_node = [network.by_node(choice) for choice in choices]
    return choices[select_encodings(network.traced, network.ops, by_node, images, shown)]
