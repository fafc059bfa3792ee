"""Weights and biases, rounded layer by layer: each layer sees what those before it have become.

In: the float network and the encodings of its activations. Out: every layer's weight on its grid,
and its bias corrected.

Bias correction. Rounding moves the mean of a channel's output; the bias moves it back:

    b += E[W x] - E[W_q x_q]        (means over images, height and width)

with x_q the input as the quantized network computes it, from layers that are rounded and corrected
already, and x the input in the same network if nothing were rounded, only clipped. Rounding an
activation leaves its mean alone, mostly; rounding what was made of codes (a product, a hard-swish)
may not. What clipping does is not corrected: that is what a few images with large activations lose,
and a bias that made good for it would spoil all others (measured: decision record 0005, 0012).

Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction"
(2019), section 4.2, in its empirical form, made sequential.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torch

from mobiledeploy.network import evenly_spread
from mobiledeploy.quantization.fake_quantize import FakeQuantizedNetwork, Rounded
from mobiledeploy.utils.threads import batch_slices, channels_last, parallel_map

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch.fx import GraphModule, Node

    from mobiledeploy.graph.aten_graph import FusedOp
    from mobiledeploy.network import Encoding


Rounding: TypeAlias = (
    "Callable[[Node, torch.Tensor, torch.Tensor, Sequence[torch.Tensor]], torch.Tensor]"
)
"""(operator, weight, scales, input in parts of a few images) -> weight on its grid."""

# Images shown to the first layers. Where activations are less than 112x112, as many more as have
# the same pixels.
_FIRST_SHOWN = 32
_FIRST_SIDE = 112


def round_with_bias_correction(
    traced: GraphModule,
    ops: Sequence[FusedOp],
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
        ops: Of it.
        encodings: By node name.
        scales: Of the weights, by the name of the unit's operator.
        images: (N, C, H, W); all that a layer is shown pass it before any goes on to the next.
            Those that read large images are shown some, evenly spread; the last ones, all.
        rounding: How a layer's weights are rounded, given the input that it gets.
        floating: Names of the operators of the units that compute in float.
        alone: Biases make good for their own layer's weights only, as if it alone were int8.
    """
    rounded: dict[str, Rounded] = {}
    images = images[_spread_first(len(images), _shown(images.shape[-1]))]
    waiting = deque(batch_slices(images))
    under_way: list[ImageBatch] = []
    layers = {u.operator for u in ops if u.has_weight and u.operator.name not in floating}
    passed: list[Node] = []
    for node in traced.graph.nodes:
        if node in layers:
            joining = []
            while waiting and waiting[0].start < _shown(_side(node)):
                quantized = FakeQuantizedNetwork(traced, ops, encodings, rounded, floating)
                exact = None if alone else _Clipped(traced, ops, encodings, {}, floating)
                part = channels_last(images[waiting.popleft()])
                joining.append(ImageBatch(part, quantized, exact))
            _advance(joining, passed)
            under_way += joining
            rounded[node.name] = _round_layer(node, under_way, scales[node.name], rounding)
        elif node.op != "output":
            _advance(under_way, [node])
        passed.append(node)
    return rounded


def _shown(side: int) -> int:
    """Return how many images are shown to a layer that reads this many pixels, squared."""
    return _FIRST_SHOWN * max(1, _FIRST_SIDE**2 // side**2)


def _side(layer: Node) -> int:
    shape = cast("Node", layer.args[0]).meta["val"].shape
    return int(shape[-1]) if len(shape) == 4 else 1


def _spread_first(count: int, wanted: int) -> list[int]:
    """Return all numbers below count, at first some that are evenly spread."""
    first = evenly_spread(count, wanted)
    return [*first, *sorted(set(range(count)).difference(first))]


def _advance(under_way: Sequence[ImageBatch], nodes: Sequence[Node]) -> None:
    """Compute these nodes' values."""

    def advance(run: FakeQuantizedNetwork) -> None:
        for node in nodes:
            run.advance(node)

    runs = [run for images in under_way for run in images.runs]
    deque(parallel_map(advance, runs), maxlen=0)


@torch.no_grad()
def _round_layer(
    node: Node, under_way: Sequence[ImageBatch], scales: torch.Tensor, rounding: Rounding
) -> Rounded:
    """Round a layer and let the images pass; its bias takes over what rounding did to the mean."""
    operands = [images.quantized.operands(node) for images in under_way]
    inputs = [given[0] for given in operands]
    _, weight, bias, *_ = operands[0]
    on_grid = rounding(node, weight, scales, inputs)
    sums = parallel_map(lambda images: images.lost(node, on_grid), under_way)
    shift = torch.stack(list(sums)).sum(0) / sum(len(x) for x in inputs)
    rounded = Rounded(on_grid, bias + shift)
    deque(
        parallel_map(lambda images: images.pass_on(node, bias, rounded.bias), under_way), maxlen=0
    )
    return rounded


class ImageBatch:
    """A few images on their way through the network.

    Args:
        images: (N, C, H, W).
        quantized: Runs the network as its layers have been rounded so far.
        exact: Runs it as if nothing were; None where each layer is looked at alone.
    """

    def __init__(
        self,
        images: torch.Tensor,
        quantized: FakeQuantizedNetwork,
        exact: FakeQuantizedNetwork | None,
    ) -> None:
        self.quantized = quantized
        self._exact = exact or quantized
        self.runs = [quantized] if exact is None else [quantized, exact]
        for run in self.runs:
            run.start(images)
        self._outputs: list[torch.Tensor] = []

    def lost(self, node: Node, on_grid: torch.Tensor) -> torch.Tensor:
        """Return the sum over images of what each output channel loses, on average: (out,)."""
        operator = cast("Any", node.target)
        before, weight, _, *settings = self._exact.operands(node)
        now, *_ = self.quantized.operands(node)
        exact = operator(before, weight, None, *settings)
        quantized = operator(now, on_grid, None, *settings)
        self._outputs = [quantized, exact][: len(self.runs)]
        return cast("torch.Tensor", (exact - quantized).sum(0).reshape(len(weight), -1).mean(1))

    def pass_on(self, node: Node, bias: torch.Tensor, corrected: torch.Tensor) -> None:
        """Go on with the layer's outputs that `lost` has computed, and the biases."""
        for run, output, add in zip(self.runs, self._outputs, (corrected, bias), strict=False):
            run.advance(node, output.add_(add.view(-1, *[1] * (output.dim() - 2))))
        self._outputs = []


class Unrounded(FakeQuantizedNetwork):
    """Runs the network with its float weights."""

    def parameters(self, n: Node, operands: Sequence[Any]) -> Rounded:  # noqa: ARG002
        """Return a layer's parameters as they are."""
        return Rounded(operands[1], operands[2])


class _Clipped(Unrounded):
    """Runs the network with activations that are clipped, but not rounded either."""

    def _coded(self, node: Node, value: torch.Tensor) -> torch.Tensor:
        encoding = self._encodings[node.name]
        return value.clamp(encoding.low, encoding.high)
