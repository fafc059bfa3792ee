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
    """Return what artifacts compute from logits: each output with its activation.

    Args:
        values: All outputs, one behind the other, (N, values).
        outputs: The outputs, in order.
    """
    if all(output.activation == "none" for output in outputs):
        return values
    ends = np.cumsum([output.size for output in outputs])
    parts = np.split(values.astype(np.float64), ends[:-1], axis=1)
    functions = {
        "none": lambda part: part,
        "softmax": lambda part: scipy.special.softmax(part, axis=1),
        "sigmoid": scipy.special.expit,
    }
    found = [functions[o.activation](part) for o, part in zip(outputs, parts, strict=True)]
    return np.concatenate(found, axis=1).astype(np.float32)


def joined_arrays(outputs: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return what a runner returns as one array (N, values)."""
    arrays = list(outputs.values())
    if len(arrays) == 1 and arrays[0].ndim == 2:
        return arrays[0]
    return np.concatenate([array.reshape(len(array), -1) for array in arrays], axis=1)
