"""The outputs of a network as one array, in the graph's order.

Input: what a module or a runner returns. Output: (N, values), every output flattened behind the one
before. Stages that compare networks or sum errors work on this form; a network with one output
(N, values) is in it already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.special
import torch
from torch.utils import _pytree as pytree

from mobiledeploy.utils.top5 import TOP, spread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from mobiledeploy.network import OutputSpec


def tensors_of(result: object) -> tuple[torch.Tensor, ...]:
    """Return the tensors in what a module returns: a tensor, or a tuple, list or dict of them.

    Raises:
        TypeError: there is anything else in it, or nothing.
    """
    leaves = tuple(pytree.tree_leaves(result))
    if not leaves or not all(isinstance(leaf, torch.Tensor) for leaf in leaves):
        raise TypeError(f"found {', '.join(type(leaf).__name__ for leaf in leaves) or 'nothing'}")
    return leaves


def joined(result: object) -> torch.Tensor:
    """Return what a module returns as one tensor (N, values)."""
    tensors = tensors_of(result)
    if len(tensors) == 1 and tensors[0].dim() == 2:
        return tensors[0]
    return torch.cat([tensor.flatten(1) for tensor in tensors], 1)


def activated(values: NDArray[np.float32], outputs: Sequence[OutputSpec]) -> NDArray[np.float32]:
    """Return what artifacts compute from the network's outputs: each with its activation.

    Args:
        values: All outputs, one behind the other, (N, values).
        outputs: The outputs, in order.
    """
    if all(output.is_exact for output in outputs):
        return values
    ends = np.cumsum([output.size for output in outputs])
    parts = np.split(values.astype(np.float64), ends[:-1], axis=1)
    found = [_activated(part, output) for output, part in zip(outputs, parts, strict=True)]
    return np.concatenate(found, axis=1).astype(np.float32)


def _activated(values: NDArray[np.float64], output: OutputSpec) -> NDArray[np.float64]:
    """Return one output (N, values) with its activation, in the same shape."""
    if output.is_exact:
        return values
    if output.activation == "sigmoid":
        return np.asarray(scipy.special.expit(values))
    each = values.reshape(len(values), *output.shape)
    if output.activation == "top5":
        probabilities = scipy.special.softmax(each, axis=-1)
        # stable: of equal values the class with the smaller index comes first, as in runtimes
        classes = np.argsort(-each, axis=-1, kind="stable")[:, :TOP]
        return spread(classes, np.take_along_axis(probabilities, classes, axis=-1), output.size)
    if output.activation == "softmax":
        result = scipy.special.softmax(each, axis=output.class_axis)
    else:
        lengths = np.linalg.norm(each, axis=output.class_axis, keepdims=True)
        result = each / np.maximum(lengths, 1e-12)
    return np.asarray(result).reshape(values.shape)


def joined_arrays(outputs: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return what a runner returns as one array (N, values)."""
    arrays = list(outputs.values())
    if len(arrays) == 1 and arrays[0].ndim == 2:
        return arrays[0]
    return np.concatenate([array.reshape(len(array), -1) for array in arrays], axis=1)
