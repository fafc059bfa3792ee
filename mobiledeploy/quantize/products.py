"""Choose the ranges of products, squeeze-and-excitation's, when those of their factors are known.

A product is rounded from codes: its code is round(q_x q_g s_x s_g / s_y), and x may be made of
codes itself, by a hard-swish. Where a gate hardly moves, as many do not, that is one map from codes
to codes; where the map merges codes, or takes every second one from half-way, all positions err to
one side. How much depends on the ratio of the scales, up and down and up again: with V3-Small's
last gate near 1/2 throughout, 0.8, 1.2 and 2 times a width that gave 25.0 dB gave 24.9, 22.4 and
15.9. Judging x, g and the product one by one sees nothing of it. So, given the encodings of what a
product is made of, of many widths the one is taken with the least

    sum over images of |J (e - mean e)|^2,    e = Q_y(Q_x(x) Q_g(g)) - x g

where J is the Jacobian of the logits with respect to the product (see `sensitivity`), and the mean,
of each channel, is what a bias will make good for (see `in_sequence`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from mobiledeploy.parallel import channels_last, in_order, parts
from mobiledeploy.progress import track
from mobiledeploy.quantize.codes import on_codes
from mobiledeploy.quantize.sensitivity import Probe, probe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch.fx import GraphModule, Node

    from mobiledeploy.graph import Unit
    from mobiledeploy.types import Encoding

WIDTHS = tuple(1.05**step for step in sorted(range(-20, 5), key=abs))
"""Of the widest range: a twentieth apart, from 0.38 to 1.22; 1 is first, ties go to it."""
_PROBES = 4


@dataclass(frozen=True, slots=True)
class Products:
    """The products of a network, as a few images show them.

    Attributes:
        units: The products.
        hardswished: What a hard-swish is taken of, by its output.
        seen: Of a few images each: what products are made of, and products, in float.
    """

    units: tuple[Unit, ...]
    hardswished: Mapping[Node, Node]
    seen: tuple[Mapping[Node, Probe], ...]

    def best(self, choices: Sequence[Mapping[str, Encoding]]) -> dict[Node, int]:
        """Return, by product, the number of the first choice that costs least.

        Args:
            choices: Each with the encoding of every node, by its name; only the products' differ.
        """

        def cheapest(unit: Unit) -> int:
            costs = [self._cost(unit, encodings) for encodings in choices]
            return costs.index(min(costs))

        outputs = [unit.output for unit in self.units]
        return dict(zip(outputs, in_order(cheapest, self.units), strict=True))

    def _cost(self, unit: Unit, encodings: Mapping[str, Encoding]) -> float:
        """Return how far the logits move, squared and summed over the images."""
        encoding = encodings[unit.output.name]
        errors = []
        for few in self.seen:
            a, b = (self._codes(node, few, encodings) for node in unit.activations)
            errors.append(on_codes(a * b, encoding).sub_(few[unit.output].value))
        by_image = [error.reshape(*error.shape[:2], -1).mean(2) for error in errors]
        mean = torch.cat(by_image).mean(0).view(-1, *[1] * (errors[0].dim() - 2))
        return sum(
            few[unit.output].cost(error - mean)
            for few, error in zip(self.seen, errors, strict=True)
        )

    def _codes(
        self, node: Node, few: Mapping[Node, Probe], encodings: Mapping[str, Encoding]
    ) -> torch.Tensor:
        """Return what the codes of a factor stand for."""
        value = few[node].value
        if node in self.hardswished:
            before = self.hardswished[node]
            value = F.hardswish(on_codes(few[before].value, encodings[before.name]))
        return on_codes(value, encodings[node.name])


def find_products(
    traced: GraphModule, units: Sequence[Unit], images: NDArray[np.float32]
) -> Products:
    """Return a network's products, and what images show of them.

    Args:
        traced: The float network.
        units: Of it.
        images: To judge on, (N, C, H, W).
    """
    products = tuple(unit for unit in units if unit.kind == "multiply")
    factors = {node for unit in products for node in unit.activations}
    hardswished = {
        unit.output: unit.activations[0]
        for unit in units
        if unit.kind == "hardswish" and unit.output in factors
    }
    made = {unit.output for unit in products}
    watched = made | factors | set(hardswished.values())
    nodes = [node for node in traced.graph.nodes if node in watched]

    def look(few: slice) -> dict[Node, Probe]:
        given = channels_last(images[few])
        probed = probe(traced, nodes, given, probes=_PROBES, seed=few.start)
        # gradients are four times the values, and only a product's are needed
        return {p.node: p if p.node in made else replace(p, gradients=()) for p in probed}

    few = parts(images, at_once=1) if products else []
    seen = tuple(track(in_order(look, few), "Judging products", len(few))) if few else ()
    return Products(products, hardswished, seen)
