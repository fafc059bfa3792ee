"""Cross-layer equalization: rescale channels so that one scale per tensor suits all of them.

Input: a `FoldedModel` and a `CalibrationSet`. Output: a `FoldedModel` (a traced graph) that
computes the same function with channels of similar range.
Maths: a tensor's channels become x / s, absorbed by the operators on both sides (see
`graph.channel_groups`), with s = (r / geometric mean of r)^e for channel maxima r of |x|.
Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction"
(2019), section 4.1. That balances the weight ranges of two layers; this balances activation ranges,
measured on images, because weights have a scale per output channel here. Which s are possible:

- no activation on either side (the residual stream of linear bottlenecks, MobileNetV2, section
  3.2): any s. Negative ones flip channels that reach further down than up, so that the range of
  all channels is half as wide.
- ReLU: relu(x / s) = relu(x) / s for s > 0.
- ReLU6: exact if no side clips at 6. A channel that stays below 6 is scaled up until it would reach
  6, less a margin for unseen images (`ActivationStats.margin`).

A depthwise convolution absorbs s without loss, because its weights have a scale per channel. In a
dense one, s makes its weights less uniform, so s is taken to a power below one (measured: decision
record 0005).
Invariant: on the calibration images the outputs equal those of the input model, to float rounding.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from mobiledeploy.graph.aten_graph import trace
from mobiledeploy.graph.channel_groups import find_groups, rescale_all
from mobiledeploy.graph.fused_ops import find_fused_ops, weight_and_bias
from mobiledeploy.graph.observers import observe_cached
from mobiledeploy.stages import CalibrationSet, FoldedModel, ObservedActivations
from mobiledeploy.utils.arguments import FOLD_FIRST, LOAD_IMAGES, require_instance
from mobiledeploy.utils.threads import on_one_thread

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch.fx import GraphModule

    from mobiledeploy.graph.channel_groups import ChannelGroup
    from mobiledeploy.graph.fused_ops import FusedOp
    from mobiledeploy.stages import ActivationStats

_DENSE_EXPONENT = 0.75
_DENSE_RELU6_EXPONENT = 0.5
_LARGEST_SCALE = 64.0
_DEAD = 1e-6  # a channel that stays below is dead: it keeps its scale


@on_one_thread
def equalize(model: FoldedModel, calibration: CalibrationSet) -> FoldedModel:
    """Return the model with the channels of every group equalized.

    Args:
        model: From `fold`; it stays as it is.
        calibration: Images to measure the channels' ranges on.

    Raises:
        ExportError: an operator has no int8 form.
        DataError: the calibration set is empty, or drives an activation to infinity or NaN.
    """
    require_instance(model, FoldedModel, "model", FOLD_FIRST)
    require_instance(calibration, CalibrationSet, "calibration", LOAD_IMAGES)
    traced = trace(model)
    ops = find_fused_ops(traced)
    groups = find_groups(traced, ops)
    (source,) = traced.graph.find_nodes(op="placeholder")
    # Not all of them are needed here, but `quantize` reuses the statistics.
    nodes = [source, *(op.output for op in ops)]
    observed = observe_cached(model, traced, nodes, calibration)
    scales = [torch.from_numpy(_scales(traced, group, observed)).float() for group in groups]
    rescaled = rescale_all(traced, zip(groups, scales, strict=True), observed)
    observations = ObservedActivations(module=traced, images=calibration, by_node=rescaled)
    return replace(model, module=traced, equalization="cross-layer", observations=observations)


def _scales(
    traced: GraphModule, group: ChannelGroup, observed: Mapping[str, ActivationStats]
) -> NDArray[np.float64]:
    """Return s per channel; the group's channels become x / s."""
    stats = [observed[node.name] for node in group.nodes]
    high = np.max([s.maxima.max(0) for s in stats], axis=0).astype(np.float64)
    low = np.min([s.minima.min(0) for s in stats], axis=0).astype(np.float64)
    largest = np.maximum(high, -low)
    live = largest > _DEAD
    if not live.any():
        return np.ones_like(largest)
    largest[~live] = 1.0  # any value: dead channels keep their scale
    lossless = all(_reads_one_channel(traced, op) for op in group.consumers)
    if np.isinf(group.ceiling):
        mean = np.exp(np.log(largest[live]).mean())
        s = (largest / mean) ** (1.0 if lossless else _DENSE_EXPONENT)
    else:
        # Only upwards: a channel that is clipped at the ceiling must still be clipped there.
        s = np.minimum(largest * stats[0].margin / group.ceiling, 1.0)
        s **= 1.0 if lossless else _DENSE_RELU6_EXPONENT
    scales = np.where(live, np.clip(s, 1 / _LARGEST_SCALE, _LARGEST_SCALE), 1.0)
    return _flip_signs(scales, low, high) if group.linear else scales


def _flip_signs(
    scales: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the scales, negative for channels that reach further down than up."""
    return np.where(-low > high, -scales, scales)


def _reads_one_channel(traced: GraphModule, op: FusedOp) -> bool:
    """Return whether each output channel reads a single input channel, as in depthwise ones."""
    weight, _ = weight_and_bias(traced, op)
    return weight.shape[1] == 1
