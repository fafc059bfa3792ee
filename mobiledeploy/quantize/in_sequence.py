"""Weights and biases, rounded layer by layer: each layer sees what those before it have become.

In: the float network and the encodings of its activations. Out: every layer's weight on its grid,
and its bias corrected.

Bias correction. Rounding moves the mean of a channel's output; the bias moves it back:

    b += E[W x] - E[W_q x_q]        (means over images, height and width)

with x_q the input as the quantized network computes it, from layers that are rounded and corrected
already, and x the input in the same network if nothing were rounded, only clipped. Rounding an
activation leaves its mean alone, mostly; rounding what was made of codes (a product, a hard-swish)
may not. What clipping does is not corrected: that is what a few images with large activations lose,
and a bias that made good for it would spoil all others (measured: docs/decisions/0005, 0012).

Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction"
(2019), section 4.2, in its empirical form, made sequential.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from operator import methodcaller
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torch

from mobiledeploy.parallel import channels_last, in_order, parts
from mobiledeploy.quantize.simulate import Simulation

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch.fx import GraphModule, Node

    from mobiledeploy.graph import Unit
    from mobiledeploy.types import Encoding


Rounding: TypeAlias = (
    "Callable[[Node, torch.Tensor, torch.Tensor, Sequence[torch.Tensor]], torch.Tensor]"
)
"""(operator, weight, scales, input in parts of a few images) -> weight on its grid."""


@dataclass(frozen=True, slots=True)
class Rounded:
    """A layer's parameters after rounding.

    Attributes:
        weight: On its grid, in float.
        bias: Corrected, (out,), not yet on its grid.
    """

    weight: torch.Tensor
    bias: torch.Tensor


def round_in_sequence(
    traced: GraphModule,
    units: Sequence[Unit],
    encodings: Mapping[str, Encoding],
    scales: Mapping[str, torch.Tensor],
    images: NDArray[np.float32],
    rounding: Rounding,
    floating: Collection[str] = (),
    *,
    alone: bool = False,
) -> dict[str, Rounded]:
    """Return every int8 layer's rounded parameters, by the name of the unit's operator.

    Args:
        traced: The float network; it is left as it is.
        units: Of it.
        encodings: By node name.
        scales: Of the weights, by the name of the unit's operator.
        images: (N, C, H, W); all pass a layer before any goes on to the next.
        rounding: How a layer's weights are rounded, given the input that it gets.
        floating: Names of the operators of the units that compute in float.
        alone: Biases make good for their own layer's weights only, as if it alone were int8.
    """
    rounded: dict[str, Rounded] = {}
    few = parts(images)
    given = (traced, units, encodings)
    quantized = [Simulation(*given, rounded, floating) for _ in few]
    exact = quantized if alone else [_Clipped(*given, {}, floating) for _ in few]
    runs = quantized if alone else [*quantized, *exact]
    layers = {u.operator for u in units if u.has_weight and u.operator.name not in floating}
    for run, part in zip(runs, few if alone else (*few, *few), strict=True):
        run.start(channels_last(images[part]))
    for node in traced.graph.nodes:
        if node in layers:
            pairs = list(zip(quantized, exact, strict=True))
            rounded[node.name] = _round_layer(node, pairs, scales[node.name], rounding)
        if node.op != "output":
            deque(in_order(methodcaller("advance", node), runs), maxlen=0)
    return rounded


@torch.no_grad()
def _round_layer(
    node: Node,
    pairs: Sequence[tuple[Simulation, Simulation]],
    scales: torch.Tensor,
    rounding: Rounding,
) -> Rounded:
    """Round the layer that comes next; its bias takes over what rounding did to the mean."""
    operands = [quantized.operands(node) for quantized, _ in pairs]
    inputs = [given[0] for given in operands]
    wanted = [exact.operands(node)[0] for _, exact in pairs]
    _, weight, bias, *settings = operands[0]
    on_grid = rounding(node, weight, scales, inputs)

    def lost(pair: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Return the sum over images of what each output channel has lost, on average."""
        before, now = pair
        operator = cast("Any", node.target)
        output = operator(before, weight, None, *settings).sub_(
            operator(now, on_grid, None, *settings)
        )
        return cast("torch.Tensor", output.sum(0).reshape(len(weight), -1).mean(1))

    sums = in_order(lost, zip(wanted, inputs, strict=True))
    shift = torch.stack(list(sums)).sum(0) / sum(len(x) for x in inputs)
    return Rounded(on_grid, bias + shift)


class _Clipped(Simulation):
    """Runs the network with float weights and activations that are clipped, but not rounded."""

    def parameters(self, n: Node, operands: Sequence[Any]) -> Rounded:  # noqa: ARG002
        """Return a layer's parameters as they are."""
        return Rounded(operands[1], operands[2])

    def _coded(self, node: Node, value: torch.Tensor) -> torch.Tensor:
        encoding = self._encodings[node.name]
        return value.clamp(encoding.low, encoding.high)
