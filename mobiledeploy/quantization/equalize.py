"""Rescale channels so that one scale per tensor serves them all, keeping the network's outputs.

In: a `FoldedModel` and a `CalibrationSet`. Out: a `FoldedModel` (as a traced graph) with the same
function and evener channels.

A tensor's channels become x / s, the operators on both sides absorbing s (`channel_groups`). This
is exact wherever nothing between the two minds the factor:

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
are taken to a power below one (measured: decision record 0005).

Invariant: on the calibration images the outputs are those of the input model, to float rounding.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from mobiledeploy.graph.aten_graph import find_fused_ops, trace, weight_and_bias
from mobiledeploy.graph.channel_groups import find_groups, rescale_all
from mobiledeploy.graph.observers import observe_cached
from mobiledeploy.network import ObservedActivations
from mobiledeploy.utils.threads import on_one_thread

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch.fx import GraphModule

    from mobiledeploy.graph.aten_graph import FusedOp
    from mobiledeploy.graph.channel_groups import ChannelGroup
    from mobiledeploy.network import ActivationStats, CalibrationSet, FoldedModel

_DENSE_EXPONENT = 0.75
_DENSE_RELU6_EXPONENT = 0.5
_LARGEST_FACTOR = 64.0
_DEAD = 1e-6  # a channel that reaches no further has shown nothing to go by


@on_one_thread
def equalize(model: FoldedModel, calibration: CalibrationSet) -> FoldedModel:
    """Return the model with every channel group rescaled.

    Raises:
        DataError: the calibration set is empty, or drives an activation to infinity or NaN.
    """
    traced = trace(model)
    ops = find_fused_ops(traced)
    groups = find_groups(traced, ops)
    (source,) = traced.graph.find_nodes(op="placeholder")
    nodes = [source, *(op.output for op in ops)]  # more than are needed here: all that are
    observed = observe_cached(model, traced, nodes, calibration)
    factors = [torch.from_numpy(_factors(traced, g, observed)).float() for g in groups]
    shown = rescale_all(traced, zip(groups, factors, strict=True), observed)
    observations = ObservedActivations(module=traced, images=calibration, by_node=shown)
    return replace(model, module=traced, equalization="cross-layer", observations=observations)


def _factors(
    traced: GraphModule, group: ChannelGroup, observed: Mapping[str, ActivationStats]
) -> NDArray[np.float64]:
    """Return s per channel; the group's channels become x / s."""
    seen = [observed[node.name] for node in group.nodes]
    high = np.max([s.maxima.max(0) for s in seen], axis=0).astype(np.float64)
    low = np.min([s.minima.min(0) for s in seen], axis=0).astype(np.float64)
    largest = np.maximum(high, -low)
    live = largest > _DEAD
    if not live.any():
        return np.ones_like(largest)
    largest[~live] = 1.0  # whatever: they stay as they are
    free = all(_reads_one_channel(traced, op) for op in group.consumers)
    if np.isinf(group.ceiling):
        s = (largest / np.exp(np.log(largest[live]).mean())) ** (1.0 if free else _DENSE_EXPONENT)
    else:
        # upwards only: a channel that reaches the ceiling must go on reaching it
        s = np.minimum(largest * seen[0].margin / group.ceiling, 1.0)
        s **= 1.0 if free else _DENSE_RELU6_EXPONENT
    factors = np.where(live, np.clip(s, 1 / _LARGEST_FACTOR, _LARGEST_FACTOR), 1.0)
    return _turned(factors, low, high) if group.linear else factors


def _turned(
    factors: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the factors, negative for channels that reach further down than up."""
    return np.where(-low > high, -factors, factors)


def _reads_one_channel(traced: GraphModule, op: FusedOp) -> bool:
    """Return whether each output channel reads a single input channel, as depthwise ones do."""
    weight, _ = weight_and_bias(traced, op)
    return weight.shape[1] == 1
