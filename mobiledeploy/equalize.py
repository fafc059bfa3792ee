"""Rescale channels so that one scale per tensor serves them all, keeping the network's outputs.

In: a `FoldedModel` and a `CalibrationSet`. Out: a `FoldedModel` (as a traced graph) with the same
function and evener channels.

A linear operator in front of a tensor x can produce x / s (its rows divided by s), and the
operators behind it can read it so (their columns multiplied by s):

    W2 x = (W2 diag(s)) (diag(1/s) x)

This is exact wherever nothing between the two minds the factor:

- *linear*: no activation at all. The residual stream of linear bottlenecks (MobileNetV2, section
  3.2): all project convolutions that add into it, all convolutions that read it. Here s may be
  negative, too: channels lean to one side, and turned round so that all lean to the same, they
  fill a range that is half as wide.
- *ReLU*: relu(x / s) = relu(x) / s for s > 0 (Nagel et al., "Data-Free Quantization Through Weight
  Equalization and Bias Correction" (2019), section 4.1).
- *ReLU6*: exact where neither side of it clips at 6: a channel that stays below 6 may be scaled up
  until it would reach 6, less a margin for images that calibration has not seen.

A depthwise convolution absorbs a factor per channel without loss, having a weight scale of its own
for each. A dense one trades evener activations for less even weights: in front of one the factors
are taken to a power below one (measured: docs/decisions/0005).

Invariant: on the calibration images the outputs are those of the input model, to float rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from mobiledeploy.graph import find_units, trace, weight_and_bias
from mobiledeploy.observe import observe
from mobiledeploy.single_thread import on_one_thread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from torch.fx import GraphModule, Node

    from mobiledeploy.graph import Unit
    from mobiledeploy.observe import Observed
    from mobiledeploy.types import CalibrationSet, FoldedModel

_DENSE_EXPONENT = 0.75
_DENSE_RELU6_EXPONENT = 0.5
_LARGEST_FACTOR = 64.0


@dataclass(frozen=True, slots=True)
class ChannelGroup:
    """Tensors whose channels must be scaled together, and the operators on both sides of them.

    Attributes:
        ceiling: What no scaled channel may exceed: 6 behind a ReLU6, else infinity.
    """

    nodes: tuple[Node, ...]
    producers: tuple[Unit, ...]
    consumers: tuple[Unit, ...]
    ceiling: float


@on_one_thread
def equalize(model: FoldedModel, calibration: CalibrationSet) -> FoldedModel:
    """Return the model with every channel group rescaled.

    Raises:
        DataError: the calibration set is empty, or drives an activation to infinity or NaN.
    """
    traced = trace(model)
    units = find_units(traced)
    groups = find_groups(traced, units)
    observed = observe(traced, [node for group in groups for node in group.nodes], calibration)
    for group in groups:
        _rescale(traced, group, _factors(traced, group, observed))
    return replace(model, module=traced)


def find_groups(traced: GraphModule, units: Sequence[Unit]) -> tuple[ChannelGroup, ...]:
    """Return the groups of tensors that may be rescaled, in topological order."""
    (source,) = traced.graph.find_nodes(op="placeholder")
    tied: dict[Node, list[Node]] = {node: [node] for node in [source, *(u.output for u in units)]}
    for unit in units:
        if unit.kind in {"add", "pool", "multiply"} or unit.moves_values:
            ends = _signal_and_gate(unit)[:1] if unit.kind == "multiply" else unit.activations
            merged: list[Node] = []
            for node in (*ends, unit.output):
                merged.extend(n for n in tied[node] if n not in merged)
            for node in merged:
                tied[node] = merged
    groups = {id(nodes): tuple(nodes) for nodes in tied.values()}
    found = (_group(nodes, units, source) for nodes in groups.values())
    return tuple(group for group in found if group is not None)


def _group(nodes: tuple[Node, ...], units: Sequence[Unit], source: Node) -> ChannelGroup | None:
    """Return the group that these tensors form, or None where something minds the factor."""
    makers = [unit for unit in units if unit.output in nodes]
    readers = [unit for unit in units if any(a in nodes for a in unit.activations)]
    producers = tuple(unit for unit in makers if unit.has_weight)
    consumers = tuple(unit for unit in readers if unit.has_weight)
    leaves_network = any(user.op == "output" for node in nodes for user in node.users)
    gates = any(unit.kind == "multiply" and _signal_and_gate(unit)[1] in nodes for unit in readers)
    curved = any(unit.kind == "hardswish" for unit in (*makers, *readers))
    bounds = [unit.clamp for unit in makers if unit.clamp is not None]
    ceiling = min((high for _, high in bounds), default=float("inf"))
    if source in nodes or leaves_network or gates or curved or not consumers:
        return None
    return ChannelGroup(nodes, producers, consumers, ceiling)


def _signal_and_gate(product: Unit) -> tuple[Node, Node]:
    """Return a product's factors: the tensor, and what each of its channels is multiplied by."""
    gate, signal = sorted(product.activations, key=lambda node: node.meta["val"].numel())
    return signal, gate


def _factors(
    traced: GraphModule, group: ChannelGroup, observed: Mapping[str, Observed]
) -> NDArray[np.float64]:
    """Return s per channel; the group's channels become x / s."""
    seen = [observed[node.name] for node in group.nodes]
    high = np.max([s.maxima.max(0) for s in seen], axis=0).astype(np.float64)
    low = np.min([s.minima.min(0) for s in seen], axis=0).astype(np.float64)
    largest = np.maximum(np.maximum(high, -low), 1e-6)
    free = all(_reads_one_channel(traced, unit) for unit in group.consumers)
    if np.isinf(group.ceiling):
        s = (largest / np.exp(np.log(largest).mean())) ** (1.0 if free else _DENSE_EXPONENT)
    else:
        # upwards only: a channel that reaches the ceiling must go on reaching it
        s = np.minimum(largest * seen[0].margin / group.ceiling, 1.0)
        s **= 1.0 if free else _DENSE_RELU6_EXPONENT
    factors: NDArray[np.float64] = np.clip(s, 1 / _LARGEST_FACTOR, _LARGEST_FACTOR)
    linear = all(unit.clamp is None for unit in group.producers)
    return _turned(factors, low, high) if linear else factors


def _turned(
    factors: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the factors, negative for channels that reach further down than up."""
    return np.where(-low > high, -factors, factors)


def _rescale(traced: GraphModule, group: ChannelGroup, s: NDArray[np.float64]) -> None:
    """Divide the producers' output channels by s and multiply the consumers' input channels."""
    factor = torch.from_numpy(s).float()
    for unit in group.producers:
        weight, bias = weight_and_bias(traced, unit)
        weight.div_(factor.view(-1, *[1] * (weight.dim() - 1)))
        bias.div_(factor)
    for unit in group.consumers:
        weight, _ = weight_and_bias(traced, unit)
        read = factor.view(_groups(unit), 1, -1)  # the factors of what each group's outputs read
        outputs_per_group = weight.shape[0] // len(read)
        read = read.expand(-1, outputs_per_group, -1).reshape(weight.shape[:2])
        weight.mul_(read.view(*weight.shape[:2], *[1] * (weight.dim() - 2)))


def _reads_one_channel(traced: GraphModule, unit: Unit) -> bool:
    """Return whether each output channel reads a single input channel, as depthwise ones do."""
    weight, _ = weight_and_bias(traced, unit)
    return weight.shape[1] == 1


def _groups(unit: Unit) -> int:
    """Return the groups of a convolution; 1 of a linear layer."""
    arguments = unit.operator.args
    return cast("int", arguments[6]) if len(arguments) > 6 else 1
