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
from mobiledeploy.graph import find_sites, find_units, trace, weight_and_bias
from mobiledeploy.observe import known_or_observe
from mobiledeploy.progress import step
from mobiledeploy.quantize.descent import judges_and_others
from mobiledeploy.quantize.float_layers import layer_name
from mobiledeploy.quantize.in_sequence import Rounded, round_in_sequence
from mobiledeploy.quantize.judge import best_encodings
from mobiledeploy.quantize.learned import learn
from mobiledeploy.quantize.products import WIDTHS, Products, find_products
from mobiledeploy.quantize.ranges import (
    REFUSED_REQUANTIZATION,
    choose_encodings,
    least_widths,
    narrowed,
    widest_ranges,
)
from mobiledeploy.quantize.rounding import round_to_cancel
from mobiledeploy.quantize.search import search_factors
from mobiledeploy.quantize.weights import round_bias, round_to_nearest, weight_scales
from mobiledeploy.types import evenly_spread

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import torch
    from numpy.typing import NDArray
    from torch.fx import GraphModule

    from mobiledeploy.graph import Site, Unit
    from mobiledeploy.types import (
        CalibrationSet,
        Encoding,
        FoldedModel,
        Observed,
        Preprocessing,
        QuantRecipe,
    )

# Images that ranges are searched on: 16 of 224x224, more of smaller ones.
_SEARCHED_PIXELS = 16 * 224**2
_LEAST_SEARCHED, _MOST_SEARCHED = 8, 128
_CORRECTED = 32  # images of 224x224, or more of smaller ones: `fast` corrects biases with them
_ENOUGH_TO_JUDGE = 96  # images; of fewer, those left to judge do not tell two choices apart


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The float network, and how its activations and weights will be encoded.

    Attributes:
        traced: The float network.
        units: Of it.
        observed: What calibration saw of its activations, by node name.
        by_site: Encodings by the name of their site.
        encodings: The same by node name.
        scales: Of the weights, by the name of the unit's operator.
    """

    traced: GraphModule
    units: tuple[Unit, ...]
    observed: Mapping[str, Observed]
    by_site: Mapping[str, Encoding]
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
        units = find_units(traced)
        sites = find_sites(traced, units)
    nodes = [node for site in sites for node in site.nodes]
    observed = known_or_observe(model, traced, nodes, calibration)
    network = _Network(traced, units, sites, widest_ranges(sites, observed), model.preprocessing)
    network = network.held_to_runtimes()
    by_site = _choose_encodings(network, recipe, calibration.images, model.ranges)
    encodings = network.by_node(by_site)
    return Plan(
        traced=traced,
        units=units,
        observed=observed,
        by_site=by_site,
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
    given = (plan.traced, plan.units, plan.encodings, plan.scales)
    if recipe.rounding == "nearest":  # only biases ask for images
        some = _CORRECTED * max(1, 224**2 // images.shape[-1] ** 2)
        images = images[evenly_spread(len(images), some)]
    with step("Rounding weights, each layer alone" if alone else "Rounding weights"):
        rounding = round_to_nearest if recipe.rounding == "nearest" else round_to_cancel
        rounded = round_in_sequence(*given, images, rounding, floating, alone=alone)
    if recipe.rounding == "learned" and not alone:
        rounded = learn(*given, images, rounded)
    input_scales = {
        unit.operator.name: plan.encodings[unit.activations[0].name].scale for unit in plan.units
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
    for unit in plan.units:
        if unit.has_weight and unit.operator.name not in floating:
            source = plan.encodings[unit.activations[0].name]
            sums = source.scale * float(plan.scales[unit.operator.name].max())
            if sums >= REFUSED_REQUANTIZATION * plan.encodings[unit.output.name].scale:
                refused.append(layer_name(unit))
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
    units: tuple[Unit, ...]
    sites: tuple[Site, ...]
    widest: Mapping[str, tuple[float, float]]
    preprocessing: Preprocessing
    least_widths: Mapping[str, float] = field(default_factory=dict)

    def held_to_runtimes(self) -> _Network:
        """Return the network with the widths below which a runtime refuses an operator.

        They travel on: what is widened is read at a coarser scale.
        """
        held, widest = self, self.widest_encodings()
        for _ in self.units:
            widths = least_widths(self.traced, self.units, self.sites, widest)
            held = replace(self, least_widths=widths)
            before, widest = widest, held.widest_encodings()
            if widest == before:
                break
        return held

    def widest_encodings(self) -> dict[str, Encoding]:
        """Return the encodings of all that calibration saw, by node name."""
        return self.by_node(self.encode(self.narrowed({site.name: 1.0 for site in self.sites})))

    def narrowed(self, factors: Mapping[str, float]) -> dict[str, tuple[float, float]]:
        """Return the widest ranges multiplied by these factors, by site name."""
        return narrowed(self.widest, factors, self.least_widths)

    def encode(self, ranges: Mapping[str, tuple[float, float]]) -> dict[str, Encoding]:
        """Return the encodings of these ranges, by site name."""
        return choose_encodings(self.units, self.sites, ranges, self.preprocessing)

    def by_node(self, by_site: Mapping[str, Encoding]) -> dict[str, Encoding]:
        """Return the encoding of every node."""
        return {node.name: by_site[site.name] for site in self.sites for node in site.nodes}

    def suited(
        self, products: Products, ranges: Mapping[str, tuple[float, float]]
    ) -> dict[str, tuple[float, float]]:
        """Return the ranges by site name, the products' suited to what they are made of."""
        made = {unit.output for unit in products.units}
        names = {node: site.name for site in self.sites for node in site.nodes if node in made}
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
        for unit in self.units:
            if unit.has_weight:
                input_scale = encodings[unit.activations[0].name].scale
                weight_and_its_bias = weight_and_bias(self.traced, unit)
                scales[unit.operator.name] = weight_scales(*weight_and_its_bias, input_scale)
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
        return network.encode(network.narrowed({site.name: 1.0 for site in network.sites}))
    side = images.shape[-1]
    asked = len(images) >= _ENOUGH_TO_JUDGE
    others = images[judges_and_others(len(images))[1]] if asked else images
    some = int(np.clip(_SEARCHED_PIXELS // side**2, _LEAST_SEARCHED, _MOST_SEARCHED))
    shown = others[evenly_spread(len(others), some)]
    factors = search_factors(
        network.traced,
        network.units,
        network.sites,
        lambda factors: network.encode(network.narrowed(factors)),
        shown,
    )
    products = find_products(network.traced, network.units, shown)
    searched = network.narrowed(factors)
    if not asked:
        return network.encode(network.suited(products, searched))
    learned = narrowed(learned, dict.fromkeys(learned, 1.0), network.least_widths)
    ranges = [searched, searched | learned] if learned else [searched]
    if products.units:
        ranges += [network.suited(products, each) for each in ranges]
    choices = [network.encode(each) for each in ranges]
    if len(choices) == 1:
        return choices[0]
    by_node = [network.by_node(choice) for choice in choices]
    return choices[best_encodings(network.traced, network.units, by_node, images, shown)]
