"""Knowledge distillation: learn parameters of the quantized network from the float logits.

Input: a student network with learnable parameters, images, and the float network's logits. Output:
the parameters, moved by Adam.
Maths: minimise |f_q(x; p) - f(x)|^2 / |f(x)|^2 over the calibration images x, with f_q the
fake-quantized network and f the float network; gradients pass through the rounding unchanged
(straight-through: Bengio et al., "Estimating or Propagating Gradients Through Stochastic Neurons",
2013). No labels are used. Hinton et al., "Distilling the Knowledge in a Neural Network" (2015),
compare softmax outputs; here the squared error of the logits is what SQNR measures.
Invariant: same images, same result on any number of cores: gradients of a batch are computed on one
thread and added in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
import torch

from mobiledeploy.utils.outputs import joined
from mobiledeploy.utils.threads import batch_slices, channels_last, parallel_map

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch.fx import GraphModule

BATCH = 8
_SLICE = 4  # images of a batch whose gradients one thread computes
_HOLD_OUT_EVERY = 6
_LEAST_POWER = 1e-12


class LogitsNetwork(Protocol):
    """A network that returns logits."""

    def run(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits (N, classes) of images (N, C, H, W); called by several threads."""


class Student(LogitsNetwork, Protocol):
    """A network with learnable parameters."""

    @property
    def parameters(self) -> Sequence[torch.Tensor]:
        """Return the learnable parameters."""


def round_straight_through(x: torch.Tensor) -> torch.Tensor:
    """Round to nearest, with the gradient of the identity."""
    return x + (x.round() - x).detach()


def split_hold_out(count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the indices of the hold-out images (every sixth) and of the training images."""
    indices = np.arange(count)
    hold_out = indices[::_HOLD_OUT_EVERY]
    return hold_out, np.setdiff1d(indices, hold_out)


def float_logits(traced: GraphModule, images: NDArray[np.float32]) -> torch.Tensor:
    """Return the float network's logits, (N, classes)."""
    batches = batch_slices(images, size=1)
    logits = parallel_map(lambda batch: joined(traced(torch.from_numpy(images[batch]))), batches)
    return torch.cat(list(logits))


def shuffled_batches(indices: NDArray[np.intp], epochs: int) -> list[NDArray[np.intp]]:
    """Return batches of indices, shuffled anew in every epoch, with a fixed seed."""
    random = np.random.default_rng(0)
    size = min(BATCH, len(indices))
    return [
        order[first : first + size]
        for order in (random.permutation(indices) for _ in range(epochs))
        for first in range(0, len(indices) - size + 1, size)
    ]


def distillation_loss(
    network: LogitsNetwork, images: NDArray[np.float32], targets: torch.Tensor
) -> float:
    """Return |logits - targets|^2 / |targets|^2 for targets (N, classes)."""
    errors = parallel_map(
        lambda batch: float(
            (network.run(channels_last(images[batch])) - targets[batch]).square().sum()
        ),
        batch_slices(images),
    )
    return sum(errors) / float(_power(targets))


def distillation_step(
    student: Student,
    adam: torch.optim.Optimizer,
    images: NDArray[np.float32],
    targets: torch.Tensor,
) -> None:
    """Take one step of Adam on a batch of images and targets (N, classes)."""
    parameters = student.parameters
    power = _power(targets)

    def gradients(batch: slice) -> tuple[torch.Tensor, ...]:
        with torch.enable_grad():
            logits = student.run(channels_last(images[batch]))
            error = (logits - targets[batch]).square().sum() / power
            return torch.autograd.grad(error, parameters)

    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    slices = [slice(first, first + _SLICE) for first in range(0, len(images), _SLICE)]
    for of_batch in parallel_map(gradients, slices):
        for parameter, gradient in zip(parameters, of_batch, strict=True):
            cast("torch.Tensor", parameter.grad).add_(gradient)
    adam.step()


def _power(targets: torch.Tensor) -> torch.Tensor:
    """Return |targets|^2, bounded below for a network whose logits are all zero."""
    return targets.square().sum().clamp_min(_LEAST_POWER)
