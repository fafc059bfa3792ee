"""Learned rounding: learn the weights' integers, and the biases, from the float logits.

Input: a `Plan`, images, and weights that are rounded already (GPTQ). Output: weights on the same
grids, and biases.
Maths: W = s round(n) with n in [-127, 127]; n and b minimise the distillation loss (see
`distillation`). n starts at the given integers and moves by hundredths of a step, so a weight
changes to its other integer only if many images agree, which takes about a hundred images.
Source: this belongs to the family of AdaRound (Nagel et al., "Up or Down? Adaptive Rounding for
Post-Training Quantization", 2020). AdaRound learns a soft rounding layer by layer, from the layer's
outputs; this learns all layers at once, from the network's logits, with straight-through gradients.
Invariant: scales and zero-points stay as they are; the epoch with the least loss on the hold-out
images is returned, or the start if no epoch improves on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mobiledeploy.errors import DataError
from mobiledeploy.quantization.distillation import (
    distillation_loss,
    distillation_step,
    float_logits,
    round_straight_through,
    shuffled_batches,
    split_hold_out,
)
from mobiledeploy.quantization.fake_quantize import FakeQuantizedNetwork, LayerWeights
from mobiledeploy.quantization.weight_rounding import largest_bias
from mobiledeploy.utils.outputs import joined
from mobiledeploy.utils.progress import track

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from mobiledeploy.quantization.plan import Plan

_EPOCHS = 10
_LEAST_IMAGES = 12
_WEIGHT_RATE = 0.012  # in steps of the weights' grids
_BIAS_RATE = 1e-4


def learn_rounding(
    plan: Plan, images: NDArray[np.float32], start: Mapping[str, LayerWeights]
) -> dict[str, LayerWeights]:
    """Return every layer's learned weight and bias, by operator name.

    Args:
        plan: The network, its encodings and scales; it stays as it is.
        images: Calibration images, (N, C, H, W); every sixth is held out.
        start: Rounded weights to start from, by operator name.

    Raises:
        DataError: there are too few images.
    """
    if len(images) < _LEAST_IMAGES:
        raise DataError(
            f"{len(images)} calibration images are too few to learn from; expected at least"
            f" {_LEAST_IMAGES}.",
            remedy="Give --calib-data more images, or leave out --ptq best.",
        )
    student = _Student(plan, start)
    targets = float_logits(plan.traced, images)
    hold_out, training = split_hold_out(len(images))
    groups = [
        {"params": list(student.steps.values()), "lr": _WEIGHT_RATE},
        {"params": list(student.biases.values()), "lr": _BIAS_RATE},
    ]
    adam = torch.optim.Adam(groups, betas=(0.9, 0.99), fused=True)
    batches = shuffled_batches(training, _EPOCHS)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, len(batches))
    per_epoch = len(batches) // _EPOCHS
    best, least = dict(start), distillation_loss(student, images[hold_out], targets[hold_out])
    for number, batch in enumerate(track(batches, "Learning rounding", len(batches)), 1):
        distillation_step(student, adam, images[batch], targets[batch])
        schedule.step()
        if number % per_epoch == 0:
            loss = distillation_loss(student, images[hold_out], targets[hold_out])
            if loss < least:
                best, least = student.rounded(), loss
    return best


class _Student:
    """The fake-quantized network with learnable weights and biases.

    Attributes:
        steps: Weights in steps of their grids, n in the formula, by operator name.
        biases: Biases in float, by operator name.
    """

    def __init__(self, plan: Plan, start: Mapping[str, LayerWeights]) -> None:
        self._plan = plan
        self._grids = {
            name: plan.scales[name].view(-1, *[1] * (layer.weight.dim() - 1))
            for name, layer in start.items()
        }
        self.steps = {
            name: (layer.weight / self._grids[name]).round().requires_grad_()
            for name, layer in start.items()
        }
        self.biases = {name: layer.bias.clone().requires_grad_() for name, layer in start.items()}
        self._largest = {
            op.name: largest_bias(plan.scales[op.name], plan.input_scale(op))
            for op in plan.ops
            if op.name in start
        }

    @property
    def parameters(self) -> list[torch.Tensor]:
        """Return steps and biases."""
        return [*self.steps.values(), *self.biases.values()]

    def run(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits, (N, classes)."""
        weights = {
            name: LayerWeights(
                round_straight_through(steps.clamp(-127, 127)) * self._grids[name], bias
            )
            for (name, steps), bias in zip(self.steps.items(), self._clamped_biases(), strict=True)
        }
        return joined(FakeQuantizedNetwork(self._plan, weights).run(images))

    def rounded(self) -> dict[str, LayerWeights]:
        """Return the present weights, rounded, and biases, by operator name."""
        return {
            name: LayerWeights(
                weight=steps.detach().clamp(-127, 127).round() * self._grids[name],
                bias=bias.detach().clone(),
            )
            for (name, steps), bias in zip(self.steps.items(), self._clamped_biases(), strict=True)
        }

    def _clamped_biases(self) -> Iterator[torch.Tensor]:
        """Yield every bias, clamped to the largest that its grid can represent.

        Adam moves all biases equally far, also those of dead channels, whose grid is tiny.
        """
        for name, bias in self.biases.items():
            yield bias.clamp(-self._largest[name], self._largest[name])
