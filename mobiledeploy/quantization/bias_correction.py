"""Bias correction: round layer by layer, and let each bias absorb the shift of its layer's mean.

Input: a `Plan`, images, and a rule that rounds weights. Output: every int8 layer's weight on its
grid and its corrected bias.
Maths: b += E[W x] - E[W_q x_q], means over images, height and width, where x_q is the layer's input
in the network whose earlier layers are rounded and corrected already, and x its input in the same
network with clipped but unrounded activations and float weights.
Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction"
(2019), section 4.2, with means measured on images instead of derived from BatchNorm. It differs in
that clipping is not corrected: clipping affects the few images with large activations, and a bias
that compensates for it would shift all others (measured: decision records 0005 and 0012).
Invariant: each layer sees its input as the layers before it, after rounding, compute it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torch

from mobiledeploy.quantization.fake_quantize import (
    FakeQuantizedNetwork,
    FloatWeightNetwork,
    LayerWeights,
)
from mobiledeploy.stages import evenly_spread
from mobiledeploy.utils.threads import batch_slices, channels_last, parallel_map

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch.fx import Node

    from mobiledeploy.quantization.plan import Plan


Rounding: TypeAlias = (
    "Callable[[Node, torch.Tensor, torch.Tensor, Sequence[torch.Tensor]], torch.Tensor]"
)
"""(operator, weight, scales, input in batches) -> weight on its grid."""

# Images for the layers that read 112x112 or more. Layers that read fewer pixels are given more
# images: as many as have the same number of pixels (decision record 0015).
_LEAST_IMAGES = 32
_LARGEST_SIDE = 112


def round_with_bias_correction(
    plan: Plan, images: NDArray[np.float32], rounding: Rounding, *, alone: bool = False
) -> dict[str, LayerWeights]:
    """Return every int8 layer's rounded weight and corrected bias, by operator name.

    Args:
        plan: The network, its encodings and scales; it stays as it is.
        images: (N, C, H, W). The last layers are rounded with all of them, layers that read large
            inputs with fewer, evenly spaced ones.
        rounding: How a layer's weights are rounded, given its input.
        alone: Correct the error of each layer's own weights only, as if it were the only int8
            layer.
    """
    rounded: dict[str, LayerWeights] = {}
    images = images[_evenly_spread_first(len(images), _image_count(images.shape[-1]))]
    waiting = deque(batch_slices(images))
    batches: list[ImageBatch] = []
    layers = {op.operator for op in plan.int8_layers}
    passed: list[Node] = []
    for node in plan.traced.graph.nodes:
        if node in layers:
            entering = []
            while waiting and waiting[0].start < _image_count(_input_side(node)):
                quantized = FakeQuantizedNetwork(plan, rounded)
                unrounded = None if alone else _ClippedNetwork(plan)
                batch = channels_last(images[waiting.popleft()])
                entering.append(ImageBatch(batch, quantized, unrounded))
            _advance(entering, passed)
            batches += entering
            rounded[node.name] = _round_layer(node, batches, plan.scales[node.name], rounding)
        elif node.op != "output":
            _advance(batches, [node])
        passed.append(node)
    return rounded


def _image_count(side: int) -> int:
    """Return the number of images for a layer whose input is side x side."""
    return _LEAST_IMAGES * max(1, _LARGEST_SIDE**2 // side**2)


def _input_side(layer: Node) -> int:
    shape = cast("Node", layer.args[0]).meta["val"].shape
    return int(shape[-1]) if len(shape) == 4 else 1


def _evenly_spread_first(count: int, wanted: int) -> list[int]:
    """Return all indices below count, beginning with `wanted` evenly spaced ones."""
    first = evenly_spread(count, wanted)
    return [*first, *sorted(set(range(count)).difference(first))]


def _advance(batches: Sequence[ImageBatch], nodes: Sequence[Node]) -> None:
    """Compute the values of nodes for all batches."""

    def advance(network: FakeQuantizedNetwork) -> None:
        for node in nodes:
            network.advance(node)

    running = [network for batch in batches for network in batch.networks]
    deque(parallel_map(advance, running), maxlen=0)


@torch.no_grad()
def _round_layer(
    node: Node, batches: Sequence[ImageBatch], scales: torch.Tensor, rounding: Rounding
) -> LayerWeights:
    """Round a layer, correct its bias, and advance all batches through it."""
    operands = [batch.quantized.operands(node) for batch in batches]
    inputs = [of_batch[0] for of_batch in operands]
    _, weight, bias, *_ = operands[0]
    on_grid = rounding(node, weight, scales, inputs)
    sums = parallel_map(lambda batch: batch.mean_error(node, on_grid), batches)
    shift = torch.stack(list(sums)).sum(0) / sum(len(x) for x in inputs)
    rounded = LayerWeights(on_grid, bias + shift)
    done = parallel_map(lambda batch: batch.finish_layer(node, bias, rounded.bias), batches)
    deque(done, maxlen=0)
    return rounded


class ImageBatch:
    """A batch of images on its way through the network, with and without rounding.

    Args:
        images: (N, C, H, W).
        quantized: Runs the network with the layers that are rounded so far.
        unrounded: Runs the network without any rounding; None if each layer is corrected alone.

    Attributes:
        networks: Those of the two that run.
    """

    def __init__(
        self,
        images: torch.Tensor,
        quantized: FakeQuantizedNetwork,
        unrounded: FakeQuantizedNetwork | None,
    ) -> None:
        self.quantized = quantized
        self._unrounded = unrounded or quantized
        self.networks = [quantized] if unrounded is None else [quantized, unrounded]
        for network in self.networks:
            network.start(images)
        self._outputs: list[torch.Tensor] = []

    def mean_error(self, node: Node, on_grid: torch.Tensor) -> torch.Tensor:
        """Return E[W x] - E[W_q x_q] per output channel, summed over the images: (out,)."""
        operator = cast("Any", node.target)
        x, weight, _, *settings = self._unrounded.operands(node)
        x_q, *_ = self.quantized.operands(node)
        exact = operator(x, weight, None, *settings)
        quantized = operator(x_q, on_grid, None, *settings)
        self._outputs = [quantized, exact][: len(self.networks)]
        return cast("torch.Tensor", (exact - quantized).sum(0).reshape(len(weight), -1).mean(1))

    def finish_layer(self, node: Node, bias: torch.Tensor, corrected: torch.Tensor) -> None:
        """Add the biases to the outputs that `mean_error` has computed, and advance."""
        for network, output, add in zip(
            self.networks, self._outputs, (corrected, bias), strict=False
        ):
            network.advance(node, output.add_(add.view(-1, *[1] * (output.dim() - 2))))
        self._outputs = []


class _ClippedNetwork(FloatWeightNetwork):
    """Runs a planned network with activations that are clipped but not rounded."""

    def _quantize(self, node: Node, value: torch.Tensor) -> torch.Tensor:
        encoding = self._encodings[node.name]
        return value.clamp(encoding.low, encoding.high)
