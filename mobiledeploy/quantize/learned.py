"""Learn the weights' integers, and the biases, from the float network's logits.

    minimise  |f_q(x; W, b) - f(x)|^2 / |f(x)|^2    over the calibration images,
    W = s round(n),  n in [-127, 127]

f_q is the network as quantized, activations included; f the float one. n and b are moved by Adam;
the gradient passes straight through the roundings. n starts at integers that are good already (see
`rounding`), and moves by hundredths of a step at a time: a weight flips to its other integer when
many images ask for it. No labels are seen, and no scale or zero-point changes. Some of the images
are not learned from but judge, after every epoch, whether what was learned holds for others: the
best epoch is kept, or the start if none is better.

Sources: Bengio et al., "Estimating or Propagating Gradients Through Stochastic Neurons" (2013), for
the straight-through gradient; Nagel et al., "Up or Down? Adaptive Rounding for Post-Training
Quantization" (2020), for learning which way to round. That learns layer by layer; from the logits
it is the error of the whole network that is made small.

Invariant: same images, same integers, on any number of cores: a few images' gradient is computed
on one thread, and gradients are summed in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from mobiledeploy.errors import DataError
from mobiledeploy.parallel import in_order
from mobiledeploy.progress import track
from mobiledeploy.quantize.in_sequence import Rounded
from mobiledeploy.quantize.simulate import Simulation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from torch.fx import GraphModule

    from mobiledeploy.graph import Unit
    from mobiledeploy.types import Encoding

_EPOCHS = 10
_JUDGES = 6  # every sixth image
_LEAST_IMAGES = 12
_BATCH = 8
_AT_ONCE = 4  # images on one core
_WEIGHT_RATE = 0.003  # in steps of the weights' grids
_BIAS_RATE = 1e-4


def learn(
    traced: GraphModule,
    units: Sequence[Unit],
    encodings: Mapping[str, Encoding],
    scales: Mapping[str, torch.Tensor],
    images: NDArray[np.float32],
    start: Mapping[str, Rounded],
) -> dict[str, Rounded]:
    """Return every layer's parameters, learned, by the name of the unit's operator.

    Args:
        traced: The float network; it is left as it is.
        units: Of it.
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
    student = _Student(traced, units, encodings, scales, start)
    targets = _float_logits(traced, images)
    numbers = np.arange(len(images))
    judges, learned = numbers[::_JUDGES], np.setdiff1d(numbers, numbers[::_JUDGES])
    rates = [
        {"params": list(student.steps.values()), "lr": _WEIGHT_RATE},
        {"params": list(student.biases.values()), "lr": _BIAS_RATE},
    ]
    adam = torch.optim.Adam(rates, betas=(0.9, 0.99))
    batches = _batches(learned)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(adam, len(batches))
    per_epoch = len(batches) // _EPOCHS
    best, least = dict(start), _loss(student, images[judges], targets[judges])
    for number, chosen in enumerate(track(batches, "Learning", len(batches)), 1):
        _descend(student, adam, images[chosen], targets[chosen])
        decay.step()
        if number % per_epoch == 0:
            loss = _loss(student, images[judges], targets[judges])
            if loss < least:
                best, least = student.rounded(), loss
    return best


def _batches(numbers: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Return the images' numbers in batches, shuffled anew in every epoch."""
    random = np.random.default_rng(0)
    size = min(_BATCH, len(numbers))
    return [
        order[first : first + size]
        for order in (random.permutation(numbers) for _ in range(_EPOCHS))
        for first in range(0, len(numbers) - size + 1, size)
    ]


def _loss(student: _Student, images: NDArray[np.float32], targets: torch.Tensor) -> float:
    """Return |logits - targets|^2 / |targets|^2."""
    few = [slice(first, first + _AT_ONCE) for first in range(0, len(images), _AT_ONCE)]
    errors = in_order(
        lambda part: float((student.run(_tensor(images[part])) - targets[part]).square().sum()), few
    )
    return sum(errors) / float(targets.square().sum())


def _tensor(images: NDArray[np.float32]) -> torch.Tensor:
    return torch.from_numpy(images).to(memory_format=torch.channels_last)


def _float_logits(traced: GraphModule, images: NDArray[np.float32]) -> torch.Tensor:
    """Return what the float network says, (N, classes)."""
    logits = in_order(lambda image: traced(torch.from_numpy(image[None])), images)
    return torch.cat(list(logits))


def _descend(
    student: _Student,
    adam: torch.optim.Optimizer,
    images: NDArray[np.float32],
    targets: torch.Tensor,
) -> None:
    """Take one step of Adam on a batch."""
    parameters = [*student.steps.values(), *student.biases.values()]
    power = targets.square().sum()

    def gradients(first: int) -> tuple[torch.Tensor, ...]:
        few = slice(first, first + _AT_ONCE)
        with torch.enable_grad():
            logits = student.run(_tensor(images[few]))
            loss = (logits - targets[few]).square().sum() / power
            return torch.autograd.grad(loss, parameters)

    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    for of_few in in_order(gradients, range(0, len(images), _AT_ONCE)):
        for parameter, gradient in zip(parameters, of_few, strict=True):
            cast("torch.Tensor", parameter.grad).add_(gradient)
    adam.step()


class _Student:
    """The network as quantized, with parameters that can be learned.

    Attributes:
        steps: Weights in steps of their grids, by the name of the unit's operator.
        biases: In float, likewise.
    """

    def __init__(
        self,
        traced: GraphModule,
        units: Sequence[Unit],
        encodings: Mapping[str, Encoding],
        scales: Mapping[str, torch.Tensor],
        start: Mapping[str, Rounded],
    ) -> None:
        self._network = (traced, units, encodings)
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

    def run(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits, (N, classes)."""
        learnable = {
            name: Rounded(_round(steps.clamp(-127, 127)) * self._grids[name], self.biases[name])
            for name, steps in self.steps.items()
        }
        return cast("torch.Tensor", Simulation(*self._network, learnable).run(images))

    def rounded(self) -> dict[str, Rounded]:
        """Return the parameters as they are now."""
        return {
            name: Rounded(
                weight=steps.detach().clamp(-127, 127).round() * self._grids[name],
                bias=self.biases[name].detach().clone(),
            )
            for name, steps in self.steps.items()
        }


def _round(x: torch.Tensor) -> torch.Tensor:
    """Round; the gradient is that of the identity."""
    return x + (x.round() - x).detach()
