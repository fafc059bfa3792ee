"""Learning from the float network's logits, whatever it is that is learned.

    minimise  |f_q(x; p) - f(x)|^2 / |f(x)|^2    over the calibration images x

f_q is the network as quantized, activations included, with parameters p; f the float one. Adam
moves p; the gradient passes straight through the roundings. No labels are seen.

Source: Bengio et al., "Estimating or Propagating Gradients Through Stochastic Neurons" (2013), for
the straight-through gradient.

Invariant: same images, same result, on any number of cores: a few images' gradient is computed on
one thread, and gradients are summed in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
import torch

from mobiledeploy.utils.threads import batch_slices, channels_last, parallel_map

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch.fx import GraphModule

BATCH = 8
_HOLD_OUT = 6  # every sixth image
_LEAST_POWER = 1e-12


class Quantized(Protocol):
    """A network as quantized, or part of it."""

    def run(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits, (N, classes); several threads may ask at once."""


class Student(Quantized, Protocol):
    """A network as quantized, with parameters that can be learned."""

    @property
    def parameters(self) -> Sequence[torch.Tensor]:
        """Return what is learned."""


def round_through(x: torch.Tensor) -> torch.Tensor:
    """Round; the gradient is that of the identity."""
    return x + (x.round() - x).detach()


def split_hold_out(count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the numbers of images that only judge (every sixth), and of those to learn from."""
    numbers = np.arange(count)
    judges = numbers[::_HOLD_OUT]
    return judges, np.setdiff1d(numbers, judges)


def float_logits(traced: GraphModule, images: NDArray[np.float32]) -> torch.Tensor:
    """Return what the float network says, (N, classes)."""
    few = batch_slices(images, size=1)
    logits = parallel_map(lambda part: traced(torch.from_numpy(images[part])), few)
    return torch.cat(list(logits))


def shuffled_batches(numbers: NDArray[np.intp], epochs: int) -> list[NDArray[np.intp]]:
    """Return the images' numbers in batches, shuffled anew in every epoch."""
    random = np.random.default_rng(0)
    size = min(BATCH, len(numbers))
    return [
        order[first : first + size]
        for order in (random.permutation(numbers) for _ in range(epochs))
        for first in range(0, len(numbers) - size + 1, size)
    ]


def loss(network: Quantized, images: NDArray[np.float32], targets: torch.Tensor) -> float:
    """Return |logits - targets|^2 / |targets|^2."""
    few = batch_slices(images)
    errors = parallel_map(
        lambda part: float(
            (network.run(channels_last(images[part])) - targets[part]).square().sum()
        ),
        few,
    )
    return sum(errors) / float(_power(targets))


def distill(
    student: Student,
    adam: torch.optim.Optimizer,
    images: NDArray[np.float32],
    targets: torch.Tensor,
) -> None:
    """Take one step of Adam on a batch."""
    parameters = student.parameters
    power = _power(targets)

    def gradients(few: slice) -> tuple[torch.Tensor, ...]:
        with torch.enable_grad():
            logits = student.run(channels_last(images[few]))
            error = (logits - targets[few]).square().sum() / power
            return torch.autograd.grad(error, parameters)

    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    for of_few in parallel_map(gradients, batch_slices(images)):
        for parameter, gradient in zip(parameters, of_few, strict=True):
            cast("torch.Tensor", parameter.grad).add_(gradient)
    adam.step()


def _power(targets: torch.Tensor) -> torch.Tensor:
    """Return |targets|^2; of a network whose logits are all zero, next to nothing."""
    return targets.square().sum().clamp_min(_LEAST_POWER)
