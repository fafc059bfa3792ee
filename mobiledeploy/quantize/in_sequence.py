"""Weights and biases, rounded layer by layer: each layer sees what those before it have become.

In: the float network and the encodings of its activations. Out: every layer's weight on its grid,
and its bias corrected.

Bias correction. Rounding moves the mean of a channel's output; the bias moves it back:

    b += E[(W - W_q) x_q]        (mean over images, height and width)

with x_q the input as the quantized network computes it, from layers that are rounded and corrected
already. The error of x_q itself is not corrected: where its range was narrowed, that error is what
a few images with large activations lose, and a bias that made good for it would spoil all others
(measured: docs/decisions/0005).

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
    """
    rounded: dict[str, Rounded] = {}
    few = parts(images)
    runs = [Simulation(traced, units, encodings, rounded, floating) for _ in few]
    layers = {u.operator for u in units if u.has_weight and u.operator.name not in floating}
    for run, part in zip(runs, few, strict=True):
        run.start(channels_last(images[part]))
    for node in traced.graph.nodes:
        if node in layers:
            rounded[node.name] = _round_layer(node, runs, scales[node.name], rounding)
        if node.op != "output":
            deque(in_order(methodcaller("advance", node), runs), maxlen=0)
    return rounded


@torch.no_grad()
def _round_layer(
    node: Node, runs: Sequence[Simulation], scales: torch.Tensor, rounding: Rounding
) -> Rounded:
    """Round the layer that comes next; its bias takes over what that did to the mean."""
    operands = [run.operands(node) for run in runs]
    inputs = [given[0] for given in operands]
    _, weight, bias, *settings = operands[0]
    on_grid = rounding(node, weight, scales, inputs)
    error = weight - on_grid

    def lost(x: torch.Tensor) -> torch.Tensor:
        """Return the sum over images of what each output channel has lost, on average."""
        output = cast("torch.Tensor", cast("Any", node.target)(x, error, None, *settings))
        return output.sum(0).reshape(len(error), -1).mean(1)

    shift = torch.stack(list(in_order(lost, inputs))).sum(0) / sum(len(x) for x in inputs)
    return Rounded(on_grid, bias + shift)
