"""A state dict as a sequence of layers.

Implementations of one architecture differ in their names, but not in the order and the shapes of
their layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

_NORM = frozenset({"weight", "bias", "running_mean", "running_var"})
COUNTER = "num_batches_tracked"  # BatchNorm's step counter, unused in inference

Signature = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Layer:
    """The tensors of one module.

    Attributes:
        name: Path of the module; empty for the root.
        tensors: Tensors by local name: `weight`, `bias`, `running_mean`, ...
    """

    name: str
    tensors: Mapping[str, torch.Tensor]

    @property
    def is_norm(self) -> bool:
        """Return whether this is a BatchNorm layer."""
        return set(self.tensors) - {COUNTER} == _NORM

    @property
    def is_map(self) -> bool:
        """Return whether this is a convolution or a linear layer."""
        return set(self.tensors) in ({"weight"}, {"weight", "bias"}) and (
            self.tensors["weight"].ndim in (2, 4)
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (out, in / groups, k, k) of a convolution (linear: k = 1), (channels,) of a BN."""
        return self.shapes.get("weight", ())

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return each tensor's shape, without BN's counter; linear weights as 1x1 convolutions."""
        shapes = {
            local: tuple(tensor.shape) for local, tensor in self.tensors.items() if local != COUNTER
        }
        if self.is_map and len(shapes["weight"]) == 2:
            shapes["weight"] += (1, 1)
        return shapes

    @property
    def outline(self) -> Signature:
        """Return what does not depend on the width: kind, kernel size, whether there is a bias."""
        if self.is_norm:
            return ("norm",)
        if self.is_map:
            return ("map", self.shape[2:], "bias" in self.tensors)
        return ("other", self.name, *sorted(self.tensors))

    @property
    def signature(self) -> Signature:
        """Return outline and shapes; layers of equal signature can hold each other's tensors."""
        return (*self.outline, *sorted(self.shapes.items()))


def layers_of(tensors: Mapping[str, torch.Tensor]) -> list[Layer]:
    """Group a state dict by module, in the order of each module's first tensor."""
    groups: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        module, _, local = name.rpartition(".")
        groups.setdefault(module, {})[local] = tensor
    return [Layer(name, group) for name, group in groups.items()]


def outlines(layers: Sequence[Layer]) -> list[Signature]:
    """Return the outline of each layer."""
    return [layer.outline for layer in layers]


def signatures(layers: Sequence[Layer]) -> list[Signature]:
    """Return the signature of each layer."""
    return [layer.signature for layer in layers]


def norms_of(module: nn.Module) -> list[nn.BatchNorm2d]:
    """Return a network's BatchNorm layers."""
    return [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]


def norm_eps_of(module: nn.Module) -> float | None:
    """Return the epsilon that all BatchNorm layers of a network share; None if it has none."""
    epsilons: set[float | None] = {layer.eps for layer in norms_of(module)}
    epsilons = epsilons or {None}
    (eps,) = epsilons
    return eps
