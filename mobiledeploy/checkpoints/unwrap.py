"""Find the state dict in the content of a checkpoint file.

Input: the content of a file. Output: `StateDict`. Invariant: no tensor of a network is dropped
without a note.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from mobiledeploy.errors import WeightsError

# In order of preference: averaged weights are the ones that their authors evaluated.
_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
_CONTAINERS = (
    *_AVERAGED,
    *("state_dict", "model_state_dict", "model", "net", "network", "module", "shadow", "params"),
)
_MAX_DEPTH = 5  # of containers in containers; a file may even contain itself

# Prefixes that wrappers add to every name: DataParallel, Lightning, torch.compile, and modules with
# the network as their only child.
_PREFIXES = ("module", "model", "net", "network", "_orig_mod")
_COUNTERS = ("n_averaged", "total_ops", "total_params")  # of AveragedModel and of thop


@dataclass(frozen=True, slots=True)
class StateDict:
    """A network's tensors by name, in the order of the file.

    Attributes:
        tensors: Tensors by name.
        prefix: Prefix that was removed from every name.
        notes: What was taken and what was left out, one sentence each.
    """

    tensors: Mapping[str, torch.Tensor]
    prefix: str = ""
    notes: tuple[str, ...] = ()


def unwrap(content: object, path: Path) -> StateDict:
    """Find the state dict in the content of a checkpoint, and strip the prefixes of wrappers.

    Raises:
        WeightsError: The content has no named tensors.
    """
    notes: list[str] = []
    found = _descend(content, notes)
    tensors = {}
    if isinstance(found, Mapping):
        tensors = {
            name: value
            for name, value in found.items()
            if isinstance(name, str) and isinstance(value, torch.Tensor)
        }
    if not tensors:
        raise WeightsError(
            f"{path} holds no named tensors, but {_described(found)}; expected a state dict.",
            remedy="Save model.state_dict(), or a dictionary that has it as 'state_dict'.",
        )
    counters = [name for name in tensors if name.rsplit(".", 1)[-1] in _COUNTERS]
    for name in counters:
        del tensors[name]
    if counters:
        notes.append(f"{len(counters)} counters of other tools were ignored (as {counters[0]}).")
    prefix = _common_prefix(tensors)
    if prefix:
        notes.append(f"The prefix {prefix!r} was stripped.")
    stripped = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return StateDict(stripped, prefix, tuple(notes))


def _descend(content: object, notes: list[str]) -> object:
    """Follow the known containers down to the state dict."""
    for _ in range(_MAX_DEPTH):
        if not isinstance(content, Mapping):
            break
        key = next((key for key in _CONTAINERS if isinstance(content.get(key), Mapping)), None)
        if key is None:
            break
        if key in _AVERAGED:
            notes.append(f"The averaged weights ({key!r}) were taken.")
        content = content[key]
    return content


def _common_prefix(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the wrappers' prefix of nearly all names, with the dot; often empty.

    "Nearly", because a Lightning module may hold tensors of its loss beside the network. A prefix
    that a number follows is a list of layers, not a wrapper.
    """
    prefix = ""
    while True:
        for candidate in _PREFIXES:
            longer = f"{prefix}{candidate}."
            rests = [name.removeprefix(longer) for name in tensors if name.startswith(longer)]
            if len(rests) > 0.9 * len(tensors) and not any(r[:1].isdecimal() for r in rests):
                prefix = longer
                break
        else:
            return prefix


def _described(found: object) -> str:
    """Describe what was found instead of tensors."""
    if isinstance(found, Mapping):
        keys = ", ".join(repr(key) for key in list(found)[:5])
        return f"a dictionary of {keys}" if keys else "an empty dictionary"
    return f"a {type(found).__name__}"
