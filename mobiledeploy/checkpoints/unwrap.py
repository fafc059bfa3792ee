"""Find the networks in the content of a checkpoint file.

Input: the content of a file. Output: `StateDict`s, one for each mapping of names to tensors and for
each network within it, in the documented order of preference. Invariant: no tensor is dropped
without a note.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest

import numpy as np
import torch

from mobiledeploy.checkpoints.auxiliary import (
    with_masks_applied,
    without_counters,
    without_observers,
)
from mobiledeploy.checkpoints.layers import layers_of
from mobiledeploy.checkpoints.unpickle import StandIn

# In order of preference: averaged weights are those that their authors evaluated.
_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
_CONTAINERS = (
    *_AVERAGED,
    *("state_dict", "model_state_dict", "model", "net", "network", "module", "shadow", "params"),
)
_HERE = len(_CONTAINERS)  # rank of tensors beside containers
_OTHER = _HERE + 1  # rank of other keys
_MAX_DEPTH = 5  # of containers in containers; a file may even contain itself
_MAX_LIST = 100

# Components that wrappers insert into names: torch.compile, FSDP, checkpointing, DeepSpeed. So does
# "module", of DataParallel and of wrappers that prune; in front of every name it is a prefix.
_WRAPPERS = frozenset(
    {
        *("_orig_mod", "_fsdp_wrapped_module", "_fpw_module", "_checkpoint_wrapped_module"),
        *("_forward_module",),
    }
)
# The first tensor of a network by the names of torchvision, timm and transformers. What precedes it
# is the prefix of a module that holds the network.
_FIRST_TENSOR = re.compile(
    r"(?P<prefix>(?:.*?\.)??)(?:features\.0\.0|conv_stem|(?:mobilenet_v[12]\.)?conv_stem\."
    r"(?:convolution|first_conv\.convolution))\.weight"
)
# Wrappers whose prefix a head or a loss beside the network may lack.
_PREFIXES = ("module", "model", "net", "network")
_NEARLY_ALL = 0.9


@dataclass(frozen=True, slots=True)
class StateDict:
    """The tensors of one network by name, in the order of the file.

    Attributes:
        tensors: Tensors of the network by name, without the prefix.
        key: Path of the mapping within the file, for example "ema.state_dict"; often empty.
        prefix: Prefix that was removed from the names, with its dot; often empty.
        beside: Tensors of the same mapping without the prefix, by their full names.
        others: Class names of the mapping's entries that are not tensors, by name.
        order: All names of `tensors` and `beside` in the order of the file.
        notes: What was removed or computed, one sentence each.
    """

    tensors: Mapping[str, torch.Tensor]
    key: str = ""
    prefix: str = ""
    beside: Mapping[str, torch.Tensor] = field(default_factory=dict)
    others: Mapping[str, str] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """Return where the network lies in the file: keys and prefix, joined by dots."""
        return ".".join(part for part in (self.key, self.prefix.rstrip(".")) if part)

    @property
    def is_averaged(self) -> bool:
        """Return whether these are averaged weights."""
        return any(part in _AVERAGED for part in self._parts)

    @property
    def has_known_place(self) -> bool:
        """Return whether every part of the place is a documented one."""
        return max(self.rank) < _OTHER

    @property
    def rank(self) -> tuple[int, ...]:
        """Return the preference among several networks, lowest first."""
        return (*map(_rank, self._parts), _HERE)

    @property
    def _parts(self) -> list[str]:
        return self.place.split(".") if self.place else []


def precedes(first: StateDict, second: StateDict) -> bool:
    """Return whether the documented order prefers one network to another.

    The first part in which their places differ decides. Unknown keys have no order.
    """
    parts = zip_longest((*first.place.split("."), ""), (*second.place.split("."), ""))
    ranks = zip_longest(first.rank, second.rank)
    for (a, b), (rank_a, rank_b) in zip(parts, ranks, strict=False):
        if a != b:
            return rank_a is not None and rank_b is not None and rank_a < rank_b
    return False


def state_dicts(content: object) -> list[StateDict]:
    """Return every network in the content of a file, in order of preference."""
    found = [
        state
        for key, mapping in _mappings(content, "", _MAX_DEPTH)
        for state in _networks(key, mapping)
    ]
    return sorted(found, key=lambda state: state.rank)


def whole_state_dicts(content: object) -> list[StateDict]:
    """Return every mapping of names to tensors in a file, in order of preference.

    Nothing is taken out of a mapping: each is given as it is, then without the prefix of a wrapper
    that all its names have.
    """
    found = []
    for key, mapping in _mappings(content, "", _MAX_DEPTH):
        tensors, notes = _tensors(mapping)
        found.append(StateDict(tensors, key=key, notes=tuple(notes)))
        for prefix in (f"{wrapper}." for wrapper in _PREFIXES):
            if all(name.startswith(prefix) for name in tensors):
                bare = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
                note = f"The prefix {prefix!r} was stripped."
                found.append(StateDict(bare, key=key, prefix=prefix, notes=(*notes, note)))
    return sorted(found, key=lambda state: state.rank)


def _rank(part: str) -> int:
    return _CONTAINERS.index(part) if part in _CONTAINERS else _OTHER


def _mappings(content: object, key: str, depth: int) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield every mapping with named tensors, and its path."""
    if isinstance(content, StandIn):
        entries = {**content.attributes, **content.entries}
        if "_modules" in entries:  # a whole module: its names are spread over its submodules
            return
    elif isinstance(content, Mapping):
        entries = dict(content)
    elif isinstance(content, list | tuple):
        entries = {str(index): value for index, value in enumerate(content[:_MAX_LIST])}
    else:
        return
    named = {name: value for name, value in entries.items() if isinstance(name, str)}
    if any(_is_tensor(value) for value in named.values()):
        yield key, named
    if depth:
        for name, value in entries.items():
            yield from _mappings(value, f"{key}.{name}".lstrip("."), depth - 1)


def _is_tensor(value: object) -> bool:
    is_array = isinstance(value, np.ndarray) and value.dtype.kind in "fiub" and value.ndim > 0
    return is_array or isinstance(value, torch.Tensor)


def _networks(key: str, mapping: Mapping[str, object]) -> Iterator[StateDict]:
    """Yield the networks of one mapping: one for each prefix of a known first tensor."""
    tensors, notes = _tensors(mapping)
    others = {name: _kind(value) for name, value in mapping.items() if not _is_tensor(value)}
    for rule in (without_counters, with_masks_applied, without_observers):
        tensors, more = rule(tensors)
        notes += more
    firsts = (_FIRST_TENSOR.fullmatch(name) for name in tensors)
    prefixes = list(dict.fromkeys(match["prefix"] for match in firsts if match))
    for prefix in prefixes or [_common_prefix(tensors)]:
        foreign = tuple(p for p in prefixes if p.startswith(prefix) and p != prefix)
        foreign += tuple(p for p in prefixes if p and not prefix.startswith(p))
        own = [name for name in tensors if not name.startswith(foreign)]
        inside = {name: name.removeprefix(prefix) for name in own if name.startswith(prefix)}
        names = {name: inside.get(name, name) for name in own}
        if len(set(names.values())) < len(names):  # a name beside the network is also one within it
            names = {name: inside.get(name, f"(root).{name}") for name in own}
        yield StateDict(
            tensors={names[name]: tensors[name] for name in inside},
            key=key,
            prefix=prefix,
            beside={names[name]: tensors[name] for name in own if name not in inside},
            others=others,
            order=tuple(names.values()),
            notes=(*notes, *((f"The prefix {prefix!r} was stripped.",) if prefix else ())),
        )


def _kind(value: object) -> str:
    return value.origin if isinstance(value, StandIn) else type(value).__name__


def _tensors(mapping: Mapping[str, object]) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Return the tensors of a mapping without the wrappers' components in their names."""
    tensors: dict[str, torch.Tensor] = {}
    wrappers: set[str] = set()
    for name, value in mapping.items():
        if isinstance(value, np.ndarray) and _is_tensor(value):
            tensor = torch.from_numpy(np.ascontiguousarray(value))
        elif isinstance(value, torch.Tensor):
            tensor = value.detach()
        else:
            continue
        first, *rest = name.split(".")
        inserted = {part for part in rest if part == "module"} | ({first, *rest} & _WRAPPERS)
        parts = [first, *(part for part in rest if part not in inserted)]
        bare = ".".join(parts[1:] if first in inserted else parts)
        if bare in tensors or not bare:
            bare = name
        wrappers |= inserted
        tensors[bare] = tensor
    note = f"The components {', '.join(sorted(wrappers))} were removed from the names."
    return tensors, [note] if wrappers else []


def _common_prefix(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the prefix that the names of all layers share, with the dot; often empty.

    Of documented wrappers it is enough that nearly all names have it. A component that several
    numbers follow is a list of layers, not a wrapper.
    """
    of_layers = [layer.name for layer in layers_of(tensors) if layer.is_map or layer.is_norm]
    prefix = ""
    while True:
        rests = [name.removeprefix(prefix) for name in of_layers if name.startswith(prefix)]
        firsts = Counter(rest.partition(".")[0] for rest in rests if "." in rest)
        if not firsts:
            return prefix
        component, count = firsts.most_common(1)[0]
        longer = f"{prefix}{component}."
        inner = [name.removeprefix(longer) for name in of_layers if name.startswith(longer)]
        numbers = {rest.partition(".")[0] for rest in inner if rest[:1].isdecimal()}
        enough = _NEARLY_ALL * len(of_layers) if component in _PREFIXES else len(of_layers) - 1
        if count <= enough or len(numbers) > 1:
            return prefix
        prefix = longer
