"""Learn the weights' integers, and the biases, from the float network's logits.

    W = s round(n),  n in [-127, 127]

n and b are what is learned (see `descent`). n starts at integers that are good already (see
`rounding`), and moves by hundredths of a step at a time: a weight flips to its other integer when
many images ask for it, and none does where there are fewer than about a hundred to ask. No scale or
zero-point changes. Some of the images are not learned from but judge, after every epoch, whether
what was learned holds for others: the best epoch is kept, or the start if none is better.

Source: Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization" (2020), for
learning which way to round. That learns layer by layer; from the logits it is the error of the
whole network that is made small.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from mobiledeploy.errors import DataError
from mobiledeploy.quantization.distillation import (
    distill,
    float_logits,
    loss,
    round_through,
    shuffled_batches,
    split_hold_out,
)
from mobiledeploy.quantization.fake_quantize import FakeQuantizedNetwork, Rounded
from mobiledeploy.quantization.weight_rounding import largest_bias
from mobiledeploy.utils.progress import track

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch.fx import GraphModule

    from mobiledeploy.graph.aten_graph import FusedOp
    from mobiledeploy.network import Encoding

_EPOCHS = 10
_LEAST_IMAGES = 12
_WEIGHT_RATE = 0.012  # in steps of the weights' grids
_BIAS_RATE = 1e-4


def learn(
    traced: GraphModule,
    ops: Sequence[FusedOp],
    encodings: Mapping[str, Encoding],
    scales: Mapping[str, torch.Tensor],
    images: NDArray[np.float32],
    start: Mapping[str, Rounded],
) -> dict[str, Rounded]:
    """Return every layer's parameters, learned, by the name of the unit's operator.

    Args:
        traced: The float network; it is left as it is.
        ops: Of it.
        encodings: By node name.
        scales: Of the weights, by the name of the unit's operator.
        images: To learn from, (N, C, H, W).
        start: Where to start from.

    Raises:
        DataError: there are too few images.
    """
    if len(images) < _LEAST_IMAGES:
        raise DataError(
            f"{len(images)} calibration images are too few to learn from; expected at least"
            f" {_LEAST_IMAGES}.",
            remedy="Give --calib-data more images, or leave out --ptq best.",
        )
    student = _Student(traced, ops, encodings, scales, start)
    targets = float_logits(traced, images)
    judges, learned = split_hold_out(len(images))
    rates = [
        {"params": list(student.steps.values()), "lr": _WEIGHT_RATE},
        {"params": list(student.biases.values()), "lr": _BIAS_RATE},
    ]
    adam = torch.optim.Adam(rates, betas=(0.9, 0.99), fused=True)
    batches = shuffled_batches(learned, _EPOCHS)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(adam, len(batches))
    per_epoch = len(batches) // _EPOCHS
    best, least = dict(start), loss(student, images[judges], targets[judges])
    for number, chosen in enumerate(track(batches, "Learning", len(batches)), 1):
        distill(student, adam, images[chosen], targets[chosen])
        decay.step()
        if number % per_epoch == 0:
            judged = loss(student, images[judges], targets[judges])
            if judged < least:
                best, least = student.rounded(), judged
    return best


class _Student:
    """The network as quantized, with parameters that can be learned.

    Attributes:
        steps: Weights in steps of their grids, by the name of the unit's operator.
        biases: In float, likewise.
    """

    def __init__(
        self,
        traced: GraphModule,
        ops: Sequence[FusedOp],
        encodings: Mapping[str, Encoding],
        scales: Mapping[str, torch.Tensor],
        start: Mapping[str, Rounded],
    ) -> None:
        self._network = (traced, ops, encodings)
        self._grids = {
            name: scales[name].view(-1, *[1] * (rounded.weight.dim() - 1))
            for name, rounded in start.items()
        }
        self.steps = {
            name: (rounded.weight / self._grids[name]).round().requires_grad_()
            for name, rounded in start.items()
        }
        self.biases = {
            name: rounded.bias.clone().requires_grad_() for name, rounded in start.items()
        }
        self._largest = {
            op.operator.name: largest_bias(
                scales[op.operator.name], encodings[op.activations[0].name].scale
            )
            for op in ops
            if op.operator.name in start
        }

    @property
    def parameters(self) -> list[torch.Tensor]:
        """Return steps and biases."""
        return [*self.steps.values(), *self.biases.values()]

    def run(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits, (N, classes)."""
        learnable = {
            name: Rounded(round_through(steps.clamp(-127, 127)) * self._grids[name], bias)
            for (name, steps), bias in zip(self.steps.items(), self._bounded(), strict=True)
        }
        return cast("torch.Tensor", FakeQuantizedNetwork(*self._network, learnable).run(images))

    def rounded(self) -> dict[str, Rounded]:
        """Return the parameters as they are now."""
        return {
            name: Rounded(
                weight=steps.detach().clamp(-127, 127).round() * self._grids[name],
                bias=bias.detach().clone(),
            )
            for (name, steps), bias in zip(self.steps.items(), self._bounded(), strict=True)
        }

    def _bounded(self) -> Iterator[torch.Tensor]:
        """Yield every bias, none larger than its channel's grid can say: a dead one's says little.

        Adam moves it as far as any other.
        """
        for name, bias in self.biases.items():
            yield bias.clamp(-self._largest[name], self._largest[name])
