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

from mobiledeploy.quantization.fake_quantize import fake_quantize
from mobiledeploy.quantization.hutchinson import Probe, probe
from mobiledeploy.utils.progress import track
from mobiledeploy.utils.threads import batch_slices, channels_last, parallel_map

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch.fx import GraphModule, Node

    from mobiledeploy.graph.aten_graph import FusedOp
    from mobiledeploy.network import Encoding

WIDTHS = tuple(1.05**step for step in sorted(range(-20, 5), key=abs))
"""Of the widest range: a twentieth apart, from 0.38 to 1.22; 1 is first, ties go to it."""
_PROBES = 4


@dataclass(frozen=True, slots=True)
class MulRanges:
    """The products of a network, as a few images show them.

    Attributes:
        ops: The products.
        hardswished: What a hard-swish is taken of, by its output.
        seen: Of a few images each: what products are made of, and products, in float.
    """

    ops: tuple[FusedOp, ...]
    hardswished: Mapping[Node, Node]
    seen: tuple[Mapping[Node, Probe], ...]

    def best(self, choices: Sequence[Mapping[str, Encoding]]) -> dict[Node, int]:
        """Return, by product, the number of the first choice that costs least.

        Args:
            choices: Each with the encoding of every node, by its name; only the products' differ.
        """

        def cheapest(op: FusedOp) -> int:
            costs = [self._cost(op, encodings) for encodings in choices]
            return costs.index(min(costs))

        outputs = [op.output for op in self.ops]
        return dict(zip(outputs, parallel_map(cheapest, self.ops), strict=True))

    def _cost(self, op: FusedOp, encodings: Mapping[str, Encoding]) -> float:
        """Return how far the logits move, squared and summed over the images."""
        encoding = encodings[op.output.name]
        errors = []
        for few in self.seen:
            a, b = (self._codes(node, few, encodings) for node in op.activations)
            errors.append(fake_quantize(a * b, encoding).sub_(few[op.output].value))
        by_image = [error.reshape(*error.shape[:2], -1).mean(2) for error in errors]
        mean = torch.cat(by_image).mean(0).view(-1, *[1] * (errors[0].dim() - 2))
        return sum(
            few[op.output].cost(error - mean) for few, error in zip(self.seen, errors, strict=True)
        )

    def _codes(
        self, node: Node, few: Mapping[Node, Probe], encodings: Mapping[str, Encoding]
    ) -> torch.Tensor:
        """Return what the codes of a factor stand for."""
        value = few[node].value
        if node in self.hardswished:
            before = self.hardswished[node]
            value = F.hardswish(fake_quantize(few[before].value, encodings[before.name]))
        return fake_quantize(value, encodings[node.name])


def find_mul_ranges(
    traced: GraphModule, ops: Sequence[FusedOp], images: NDArray[np.float32]
) -> MulRanges:
    """Return a network's products, and what images show of them.

    Args:
        traced: The float network.
        ops: Of it.
        images: To judge on, (N, C, H, W).
    """
    products = tuple(op for op in ops if op.kind == "multiply")
    factors = {node for op in products for node in op.activations}
    hardswished = {
        op.output: op.activations[0]
        for op in ops
        if op.kind == "hardswish" and op.output in factors
    }
    made = {op.output for op in products}
    watched = made | factors | set(hardswished.values())
    nodes = [node for node in traced.graph.nodes if node in watched]

    def look(few: slice) -> dict[Node, Probe]:
        given = channels_last(images[few])
        probed = probe(traced, nodes, given, probes=_PROBES, seed=few.start)
        # gradients are four times the values, and only a product's are needed
        return {p.node: p if p.node in made else replace(p, gradients=()) for p in probed}

    few = batch_slices(images, size=1) if products else []
    seen = tuple(track(parallel_map(look, few), "Judging products", len(few))) if few else ()
    return MulRanges(products, hardswished, seen)
