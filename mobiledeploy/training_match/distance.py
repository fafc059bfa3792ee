"""How far what BatchNorms see lies from what they remember.

Input: a float network with BatchNorm and images. Output: a `Distance`.

Each BatchNorm keeps the mean mu and the variance s^2 of its input over the training set. With mean
m and variance v of the same channel over some images,

    d = sqrt(((m - mu) / s)^2 + log(v / s^2)^2 / 2)

is zero where the two agree. For small differences, d^2 / 2 is the Kullback-Leibler divergence of
the two normal distributions. A layer's distance is the median over its channels, the network's
distance the mean over its layers. Medians ignore the few channels that are rarely active.

Measured on V2 (ImageNet) and on V1 and V3 (CIFAR-10): 32 training-like images give 0.11 to 0.14,
eight give 0.2 to 0.29. `benchmarks/training_match.py` measures it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from mobiledeploy.utils.threads import batch_slices, parallel_map

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    Moments = dict[str, torch.Tensor]  # name -> (sum, sum of squares, count), (3, channels)

# Variances below this share of a layer's median say nothing: the channel is dead.
_DEAD = 1e-6
# Added to both variances, as a share of the median: a channel that is nearly constant counts less.
_FLOOR = 1e-3


@dataclass(frozen=True, slots=True)
class Distance:
    """The distance of a network from its BatchNorm statistics.

    Attributes:
        layers: The distance of each BatchNorm, by module name, in the order of execution.
        images: Number of images that were run.
    """

    layers: Mapping[str, float]
    images: int

    @property
    def mean(self) -> float:
        """Return the distance of the network: the mean over its layers."""
        return sum(self.layers.values()) / len(self.layers)


def has_statistics(module: nn.Module) -> bool:
    """Return whether a network has BatchNorm layers that remember statistics."""
    return any(_remembers(layer) for layer in module.modules())


def batch_norm_distance(module: nn.Module, images: NDArray[np.float32]) -> Distance:
    """Run images through a network and compare every BatchNorm's input with its statistics.

    Args:
        module: In eval mode, with at least one BatchNorm (see `has_statistics`).
        images: Network inputs, (N, C, H, W).
    """
    norms = {name: layer for name, layer in module.named_modules() if _remembers(layer)}
    total: Moments = {}
    for part in parallel_map(
        lambda batch: _moments(module, norms, images[batch]), batch_slices(images)
    ):
        for name, moments in part.items():
            total[name] = total[name] + moments if name in total else moments
    layers = {name: _layer_distance(norms[name], moments) for name, moments in total.items()}
    return Distance(layers, len(images))


def _remembers(layer: nn.Module) -> bool:
    return isinstance(layer, nn.BatchNorm2d) and layer.running_var is not None


def _moments(
    module: nn.Module, norms: Mapping[str, nn.Module], images: NDArray[np.float32]
) -> Moments:
    """Return count, sum and sum of squares of each BatchNorm's input channels."""
    recorder = _Recorder({layer: name for name, layer in norms.items()})
    with recorder:
        module(torch.from_numpy(images))
    return recorder.moments


class _Recorder(torch.overrides.TorchFunctionMode):
    """Records moments at every `batch_norm` call of this thread, without touching the module.

    Hooks would be shared by all threads that run the module.
    """

    def __init__(self, names: Mapping[nn.Module, str]) -> None:
        super().__init__()
        self._names = {
            id(layer.running_var): name  # the tensor that `batch_norm` is called with
            for layer, name in names.items()
        }
        self.moments: Moments = {}

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN204
        """Record the input of `batch_norm`; run every function as it is."""
        if func is torch.nn.functional.batch_norm:
            name = self._names.get(id(args[2]))
            if name is not None:
                channels = args[0].transpose(0, 1).flatten(1)
                sums = (channels.sum(1), channels.square().sum(1))
                count = torch.full_like(sums[0], channels.shape[1])
                self.moments[name] = torch.stack((count, *sums)).double()
        return func(*args, **(kwargs or {}))


def _layer_distance(norm: nn.Module, moments: torch.Tensor) -> float:
    """Return the median over a layer's channels of the distance of their two distributions."""
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    count, sums, squares = moments
    mean = sums / count
    variance = (squares / count - mean.square()).clamp_min(0)
    remembered = norm.running_var.double()
    typical = remembered.median().clamp_min(torch.finfo(torch.float32).tiny)
    floor = _FLOOR * typical
    shift = (mean - norm.running_mean.double()) / (remembered + floor).sqrt()
    spread = ((variance + floor) / (remembered + floor)).log()
    distance = (shift.square() + spread.square() / 2).sqrt()
    return float(distance[remembered > _DEAD * typical].median())
