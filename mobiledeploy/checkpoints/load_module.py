"""Load a checkpoint into a module of the user's code.

Input: the module and a path. Output: the module with the checkpoint's tensors, and their
provenance. Invariant: names and shapes of all parameters and buffers agree; a prefix that a wrapper
put in front of every name is the only difference that is allowed.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mobiledeploy.checkpoints.dialects import SEQUENTIAL
from mobiledeploy.checkpoints.layers import COUNTER, layers_of
from mobiledeploy.checkpoints.load import LARGEST
from mobiledeploy.checkpoints.match import differences
from mobiledeploy.checkpoints.read import read_checkpoint
from mobiledeploy.checkpoints.unwrap import whole_state_dicts
from mobiledeploy.errors import WeightsError
from mobiledeploy.network import WeightsProvenance
from mobiledeploy.utils.files import sha256_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn


def load_state(module: nn.Module, weights: str) -> WeightsProvenance:
    """Load the checkpoint at `weights` into `module`, in place.

    Raises:
        WeightsError: it cannot be read, or its names and shapes are not the module's.
    """
    path = Path(weights)
    states = whole_state_dicts(read_checkpoint(path).content)
    if not states:
        raise WeightsError(
            f"{path} holds no named tensors; expected a state dict.",
            remedy="Save model.state_dict().",
        )
    ours = module.state_dict()
    fitting = [state for state in states if _fits(state.tensors, ours)]
    if not fitting:
        closest = max(states, key=lambda state: len(state.tensors.keys() & ours.keys()))
        found = differences(layers_of(closest.tensors), layers_of(ours), SEQUENTIAL)
        raise WeightsError(
            f"{path} does not fit the network: {found}.",
            remedy="Pass the checkpoint of this network, or call the code with the arguments of"
            " the training (--model-arg NAME=VALUE).",
        )
    chosen = fitting[0]
    _refuse_invalid(path, chosen.tensors)
    module.load_state_dict(dict(chosen.tensors), strict=False)
    notes = [f"{len(chosen.tensors)} tensors were loaded by name.", *chosen.notes]
    if chosen.key:
        notes.append(f"They were taken from {chosen.key!r}.")
    return WeightsProvenance(
        source="file", origin=weights, sha256=sha256_of(path), dialect="own", notes=tuple(notes)
    )


def digest_of_state(module: nn.Module) -> str:
    """Return the sha256 over the names, shapes and values of a module's parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


def _fits(theirs: Mapping[str, torch.Tensor], ours: Mapping[str, torch.Tensor]) -> bool:
    """Return whether names and shapes agree; BatchNorm's counters may be absent."""

    def shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
        return {
            name: tuple(tensor.shape)
            for name, tensor in tensors.items()
            if name.rpartition(".")[2] != COUNTER
        }

    return shapes(theirs) == shapes(ours)


def _refuse_invalid(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all()):
            raise WeightsError(
                f"{path}: {name} has values that are NaN or infinite.",
                remedy="Pass a float checkpoint of a completed training.",
            )
        if tensor.is_floating_point() and bool((tensor.abs() > LARGEST).any()):
            raise WeightsError(
                f"{path}: {name} has values above {LARGEST:.0e}.",
                remedy="Pass a float checkpoint of a completed training.",
            )
