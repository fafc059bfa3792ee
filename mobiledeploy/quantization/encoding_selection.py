"""Encoding selection: choose among candidate encodings by the loss on hold-out images.

Input: candidate `Plan`s, hold-out images, and other images for bias correction. Output: the plan
with the least distillation loss, with fake-quantized activations and float weights.
Maths: argmin over candidates of |f_q(x) - f(x)|^2 / |f(x)|^2 (see `distillation`).
Invariant: the hold-out images were not used to search or learn any candidate. If the network has
multiplications, whose rounding shifts means by amounts that differ between candidates, biases are
corrected before the loss is measured, as they will be afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mobiledeploy.graph.fused_ops import weight_and_bias
from mobiledeploy.quantization.bias_correction import round_with_bias_correction
from mobiledeploy.quantization.distillation import distillation_loss, float_logits
from mobiledeploy.quantization.fake_quantize import FakeQuantizedNetwork, LayerWeights
from mobiledeploy.utils.outputs import joined
from mobiledeploy.utils.progress import step

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch.fx import Node

    from mobiledeploy.quantization.plan import Plan


def select_encodings(
    candidates: Sequence[Plan],
    hold_out: NDArray[np.float32],
    correction_images: NDArray[np.float32],
) -> Plan:
    """Return the candidate with the least loss; of equal ones, the first.

    Args:
        candidates: Plans of one network with different encodings.
        hold_out: Images to measure the loss on, (N, C, H, W).
        correction_images: Images to correct biases with, (N, C, H, W).
    """
    with step("Selecting encodings"):
        targets = float_logits(candidates[0].traced, hold_out)
        losses = [
            distillation_loss(
                _Candidate(plan, corrected_weights(plan, correction_images)), hold_out, targets
            )
            for plan in candidates
        ]
    return candidates[losses.index(min(losses))]


def corrected_weights(plan: Plan, images: NDArray[np.float32]) -> Mapping[str, LayerWeights]:
    """Return every layer's float weight and its bias, corrected if there are multiplications."""
    if not any(op.kind == "multiply" for op in plan.ops):
        return {op.name: LayerWeights(*weight_and_bias(plan.traced, op)) for op in plan.layers}
    return round_with_bias_correction(plan, images, _keep_float)


def _keep_float(
    _node: Node, weight: torch.Tensor, _scales: torch.Tensor, _inputs: Sequence[torch.Tensor]
) -> torch.Tensor:
    return weight


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A fake-quantized network that several threads can run."""

    plan: Plan
    weights: Mapping[str, LayerWeights]

    def run(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits, (N, classes)."""
        return joined(FakeQuantizedNetwork(self.plan, self.weights).run(images))
