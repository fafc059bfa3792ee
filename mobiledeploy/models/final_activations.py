"""Softmax, sigmoid and L2 normalisation at the end of a module.

Input: a user's module. Output: the same module, which returns what these operators read, and which
of them each output had. Artifacts compute them in float, behind the int8 network.

The operators are found while the module runs, so it does not matter how they are called:
`F.softmax(x, 1)`, `x.softmax(-1)`, `nn.Softmax`, `torch.sigmoid(x)`, `F.normalize(x)`,
`x / x.norm(dim=1, keepdim=True)`. Those over another axis than that of the classes stay in the
module, as do those that are not the last operator.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobiledeploy.network import Activation

_SOFTMAX = (F.softmax, torch.softmax, torch.special.softmax, torch.Tensor.softmax)
_SIGMOID = (F.sigmoid, torch.sigmoid, torch.special.expit, torch.Tensor.sigmoid)
_NORMS = (torch.norm, torch.linalg.norm, torch.linalg.vector_norm, torch.Tensor.norm)
_QUOTIENTS = (torch.div, torch.true_divide, torch.Tensor.div, torch.Tensor.__truediv__)
# what stands between a norm and the division by it
_OF_NORMS = (
    torch.clamp,
    torch.clamp_min,
    torch.Tensor.clamp,
    torch.Tensor.clamp_min,
    torch.Tensor.expand_as,
    torch.add,
    torch.Tensor.add,
    torch.Tensor.__add__,
)
# x / max(|x|, eps) and x / (|x| + eps) differ by this, relatively, where |x| is 1
_LARGEST_EPS = 1e-6


def without_final_activations(module: nn.Module) -> nn.Module:
    """Return a module that returns what the final activations of a module read.

    It shares its layers with the module, which stays as it is.
    """
    if isinstance(module, torch.fx.GraphModule | torch.jit.ScriptModule):
        return module  # their class belongs to the instance
    owner = type(module)
    shortened = copy.copy(module)
    shortened.__class__ = type(
        owner.__name__, (_Shortened, owner), {"__module__": owner.__module__}
    )
    return shortened


def final_activations(module: nn.Module, image: torch.Tensor) -> tuple[Activation, ...]:
    """Return the activation that each output of a module ends in, in order.

    Args:
        module: The module as the user wrote it.
        image: (1, C, H, W).
    """
    none: Activation = "none"
    if isinstance(module, torch.fx.GraphModule | torch.jit.ScriptModule):
        return (none,) * len(pytree.tree_leaves(module(image)))
    with _Watch() as watch:
        leaves = pytree.tree_leaves(module(image))
    found = {result: activation for result, (activation, _) in watch.found.items()}
    return tuple(found.get(id(leaf), none) for leaf in leaves)


class _Shortened(nn.Module):
    """A module without its final activations; put in front of its own class."""

    def forward(self, *inputs: Any) -> object:
        with _Watch() as watch:
            result = super().forward(*inputs)
        return pytree.tree_map(lambda leaf: watch.found.get(id(leaf), ("none", leaf))[1], result)


class _Watch(TorchFunctionMode):
    """Remembers what the results of activations were computed from.

    Attributes:
        found: By the id of a result, the activation and the tensor that it read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[int, tuple[Activation, torch.Tensor]] = {}
        self._norms: dict[int, torch.Tensor] = {}
        self._kept: list[object] = []  # results, so that no id is given twice

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        """Call a function of PyTorch, and remember its result if it is an activation's."""
        named = kwargs or {}
        result = func(*args, **named)
        source = args[0] if args else named.get("input")
        if isinstance(result, torch.Tensor) and isinstance(source, torch.Tensor):
            self._remember(func, source, args[1:], named, result)
        return result

    def _remember(
        self,
        func: Callable[..., Any],
        source: torch.Tensor,
        args: tuple[Any, ...],
        named: dict[str, Any],
        result: torch.Tensor,
    ) -> None:
        activation = _activation(func, source, args, named)
        if (
            activation is None
            and func in _QUOTIENTS
            and not named
            and self._is_own_norm(source, args)
        ):
            activation = "normalize"
        if activation is not None:
            self.found[id(result)] = (activation, source)
        elif func in _NORMS and _is_l2_norm(source, args, named):
            self._norms[id(result)] = source
        elif func in _OF_NORMS and id(source) in self._norms and _is_small(args, named):
            self._norms[id(result)] = self._norms[id(source)]
        else:
            return
        self._kept += [source, result]

    def _is_own_norm(self, source: torch.Tensor, args: tuple[Any, ...]) -> bool:
        """Return whether a tensor is divided by its own norm."""
        return len(args) == 1 and self._norms.get(id(args[0])) is source


def _activation(
    func: Callable[..., Any], source: torch.Tensor, args: tuple[Any, ...], named: dict[str, Any]
) -> Activation | None:
    """Return the activation that a function computes; None for any other function or axis."""
    if func in _SIGMOID:
        return "sigmoid"
    if func in _SOFTMAX:
        axis = named.get("dim", args[0] if args else None)
        return "softmax" if axis is not None and _is_class_axis(source, axis) else None
    if func is F.normalize:
        defaults = {"p": 2.0, "dim": 1, "eps": 1e-12}
        given = {**defaults, **dict(zip(defaults, args, strict=False)), **named}
        is_l2 = given["p"] == 2 and cast("float", given["eps"]) <= _LARGEST_EPS
        return "normalize" if is_l2 and _is_class_axis(source, given["dim"]) else None
    return None


def _is_l2_norm(source: torch.Tensor, args: tuple[Any, ...], named: dict[str, Any]) -> bool:
    """Return whether a norm is the length of the vectors of classes, with their axis kept."""
    order = named.get("p", named.get("ord", args[0] if args else None))
    axis = named.get("dim", args[1] if len(args) > 1 else None)
    keeps = named.get("keepdim", args[2] if len(args) > 2 else False)
    if isinstance(axis, list | tuple) and len(axis) == 1:
        axis = axis[0]
    is_l2 = order in (None, 2, "fro")
    return is_l2 and bool(keeps) and isinstance(axis, int) and _is_class_axis(source, axis)


def _is_small(args: tuple[Any, ...], named: dict[str, Any]) -> bool:
    """Return whether the number that a norm is raised to, or by, is negligible."""
    given = [*args, *named.values()]
    if len(given) != 1 or "max" in named:
        return False
    return isinstance(given[0], torch.Tensor) or 0 <= given[0] <= _LARGEST_EPS


def _is_class_axis(source: torch.Tensor, axis: int) -> bool:
    """Return whether an axis is that of the classes: 1 of an image, else the last one."""
    return axis % source.dim() == (1 if source.dim() == 4 else source.dim() - 1)
