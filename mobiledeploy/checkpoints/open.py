"""Open a checkpoint: choose the network in it that fits.

Input: a path, and a function that fits a checkpoint to networks. Output: `Checkpoint`. Invariant:
of several networks that fit, the documented order chooses one with a note, or an error names them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch

from mobiledeploy.checkpoints.auxiliary import (
    InputNormalization,
    input_normalization,
    quantized_names,
    reparameterization,
    without_training_state,
)
from mobiledeploy.checkpoints.dialects import (
    HUB_FILES,
    TIMM,
    Dialect,
    HubConfig,
    read_hub_config,
    recognize,
)
from mobiledeploy.checkpoints.layers import Layer, layers_of
from mobiledeploy.checkpoints.read import FileContent, needs_code, read_checkpoint
from mobiledeploy.checkpoints.unpickle import StandIn
from mobiledeploy.checkpoints.unwrap import StateDict, precedes, state_dicts
from mobiledeploy.errors import WeightsError
from mobiledeploy.models.spec import Family
from mobiledeploy.utils.files import sha256_of

T = TypeVar("T")
_SHOWN = 5
_NAME_KEYS = ("arch", "architecture", "model_name", "model")  # what training scripts call a network


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The layers of one network in a file, in the order of the file.

    Attributes:
        path: Path of the file.
        sha256: Digest of the file.
        state: Where the network lies in the file.
        layers: Every tensor that may belong to the network.
        left_over: Names of layers beside the network that nothing explains.
        dialect: The naming scheme.
        architecture: Names of the network by the file, its folder, or the training script.
        config: The hub's description beside the file, if there is one.
        normalization: Normalisation that the network applies to its input itself.
        notes: What was taken and what was left out, one sentence each.
    """

    path: Path
    sha256: str
    state: StateDict
    layers: tuple[Layer, ...]
    left_over: tuple[str, ...] = ()
    dialect: Dialect
    architecture: str
    config: HubConfig | None
    normalization: InputNormalization | None = None
    notes: tuple[str, ...] = ()


def open_checkpoint(path: Path, fit: Callable[[Checkpoint], T]) -> tuple[Checkpoint, T]:
    """Read a checkpoint file and choose the network in it.

    Args:
        path: Path of the file.
        fit: Raises WeightsError for a checkpoint that does not fit.

    Returns:
        The network's checkpoint and the result of `fit` for it.

    Raises:
        WeightsError: The file cannot be read, holds no network that fits, or holds several.
    """
    content = read_checkpoint(path)
    states = [state for state in state_dicts(content.content) if _has_layers(state)]
    if not states:
        raise _no_network(path, content)
    template = _template(path, content)
    fitting: list[tuple[Checkpoint, T]] = []
    failed: list[tuple[StateDict, WeightsError]] = []
    for state in states:
        try:
            fitting.append(_first_that_fits(state, template, fit))
        except WeightsError as error:
            failed.append((state, error))
    if not fitting:
        most = max(len(state.tensors) for state, _ in failed)
        raise next(error for state, error in failed if 2 * len(state.tensors) >= most)
    chosen, result = fitting[0]
    _refuse_separate_head(chosen, [state for state, _ in failed])
    notes = [*_choice(path, [each.state for each, _ in fitting]), *_passed_over(chosen, failed)]
    return replace(chosen, notes=(*notes, *chosen.notes)), result


def dialect_name(dialect: Dialect, family: Family, *, by_name: bool) -> str:
    """Return the name of a dialect for the provenance.

    The network's own names are torchvision's for V2 and V3, which it has, and timm's for V4.
    """
    if not by_name:
        return dialect.name
    if family.startswith("v4"):
        return TIMM.name
    return "mobiledeploy" if family == "v1" else "torchvision"


def _has_layers(state: StateDict) -> bool:
    tensors = {**state.tensors, **state.beside}
    return any(layer.is_map for layer in layers_of(tensors))


def _template(path: Path, content: FileContent) -> Checkpoint:
    """Return a checkpoint with everything that does not depend on the choice of the network."""
    config = read_hub_config(path)
    names = [config.architecture if config and config.architecture else path.name]
    if not config:
        names += _names_in(content.content)
        names += _hub_folders(path)
    skipped = [name for name in content.stand_ins if not name.startswith(("numpy.", "builtins."))]
    rest = f" and {len(skipped) - _SHOWN} more" if len(skipped) > _SHOWN else ""
    note = f"Objects of other libraries were skipped: {', '.join(skipped[:_SHOWN])}{rest}."
    return Checkpoint(
        path=path,
        sha256=sha256_of(path),
        state=StateDict({}),
        layers=(),
        dialect=recognize((), ""),
        architecture=" ".join(names),
        config=config,
        notes=(note,) if skipped else (),
    )


def _names_in(content: object) -> Iterator[str]:
    """Yield the names of the network that a training script saved beside the weights."""
    if isinstance(content, Mapping):
        arguments = [content.get(key) for key in ("args", "hyper_parameters", "config")]
        for source in (content, *arguments):
            entries = _entries(source)
            yield from (str(entries[k]) for k in _NAME_KEYS if isinstance(entries.get(k), str))


def _hub_folders(path: Path) -> Iterator[str]:
    """Yield the folders that name the network of a file which only a hub's cache names."""
    if path.name in HUB_FILES:
        yield from (folder.name for folder in path.absolute().parents if _is_network(folder.name))


def _is_network(name: str) -> bool:
    return "mobilenet" in name.lower()


def _entries(value: object) -> Mapping[str, object]:
    """Return the named entries of a mapping, a namespace or a stand-in."""
    if isinstance(value, StandIn):
        return {**value.attributes, **value.entries}
    return value if isinstance(value, Mapping) else getattr(value, "__dict__", {})


def _first_that_fits(
    state: StateDict, template: Checkpoint, fit: Callable[[Checkpoint], T]
) -> tuple[Checkpoint, T]:
    """Fit a network with the layers beside it, or else without them.

    Raises:
        WeightsError: Neither fits, or layers beside the network are left over.
    """
    _refuse_quantized(state, template.path)
    whole, alone = _variants(state, template)
    try:
        return whole, fit(whole)
    except WeightsError:
        if alone is None:
            raise
        result = fit(alone)
    if alone.left_over:
        raise WeightsError(
            f"{template.path} has a network at {state.place!r} and {len(alone.left_over)} modules "
            f"beside it that may belong to it: {', '.join(alone.left_over[:_SHOWN])}.",
            remedy="Save the state dict of the network alone, without these tensors, if inference "
            "does not need them. Otherwise the network is not supported.",
        )
    return alone, result


def _variants(state: StateDict, template: Checkpoint) -> tuple[Checkpoint, Checkpoint | None]:
    """Return a network with the layers beside it and without them; None if there are none."""
    inside, normalization = input_normalization(dict(state.tensors))
    inside, notes = without_training_state(inside, beside=False)
    outside, other_normalization = input_normalization(dict(state.beside))
    maps = [layer for layer in layers_of(inside) if layer.is_map]
    classes = maps[-1].shape[0] if maps else 0
    outside, more = without_training_state(outside, beside=True, classes=classes)
    notes = [*template.notes, *state.notes, *notes, *more]

    def checkpoint(tensors: Mapping[str, torch.Tensor], left_over: tuple[str, ...]) -> Checkpoint:
        layers = tuple(layers_of(tensors))
        return replace(
            template,
            state=state,
            layers=layers,
            left_over=left_over,
            dialect=recognize(layers, template.architecture),
            normalization=normalization or other_normalization,
            notes=tuple(notes),
        )

    both = {**inside, **outside}
    whole = {name: both[name] for name in state.order if name in both}
    left_over = tuple(layer.name for layer in layers_of(outside))
    return checkpoint(whole, ()), checkpoint(inside, left_over) if outside else None


def _refuse_quantized(state: StateDict, path: Path) -> None:
    """Raise WeightsError for tensors that only other modules can turn into weights."""
    quantized = quantized_names(state.tensors, state.others)
    if quantized:
        raise WeightsError(
            f"{path} is a quantized state dict ({len(quantized)} quantized tensors, "
            f"for example {quantized[0]}); expected float weights.",
            remedy="Pass the float checkpoint that was quantized.",
        )
    if found := reparameterization(state.tensors):
        name, what, remedy = found
        raise WeightsError(
            f"{path}: {name} is part of {what}, not a weight.",
            remedy=f"Fold it into the weights before saving: {remedy}.",
        )


def _choice(path: Path, fitting: list[StateDict]) -> list[str]:
    """Return notes on the choice of the first of several networks.

    Raises:
        WeightsError: Several networks fit and no documented order chooses one.
    """
    first, *others = [
        state
        for index, state in enumerate(fitting)
        if not any(_equal(state, earlier) for earlier in fitting[:index])
    ]
    if any(not precedes(first, other) for other in others):
        places = ", ".join(repr(state.place) for state in (first, *others))
        raise WeightsError(
            f"{path} holds several networks that fit: {places}.",
            remedy="Save the one that you mean alone, for example "
            f"torch.save(torch.load(path)[{first.place.split('.')[0]!r}], new_path).",
        )
    notes = []
    if first.is_averaged:
        notes.append(f"The averaged weights ({(first.key or first.place)!r}) were taken.")
    elif not first.has_known_place:
        notes.append(f"The weights were taken from {first.place!r}.")
    if others:
        places = ", ".join(repr(state.place) for state in others)
        notes.append(f"The file holds other weights that fit and were not taken: {places}.")
    return notes


def _refuse_separate_head(chosen: Checkpoint, others: list[StateDict]) -> None:
    """Raise WeightsError for a network whose classifier seems to be another entry of the file."""
    *_, last = (layer for layer in chosen.layers if layer.is_map)
    if last.tensors["weight"].ndim == 2:
        return
    for state in others:
        for layer in layers_of(state.tensors):
            weight = layer.tensors.get("weight")
            if layer.is_map and weight is not None and weight.shape[1:] == last.shape[:1]:
                raise WeightsError(
                    f"{chosen.path} holds a network without classifier at {chosen.state.place!r} "
                    f"and what may be its classifier at {state.place!r}.",
                    remedy="Save both in one state dict, or the network alone if it is to give "
                    "features.",
                )


def _passed_over(chosen: Checkpoint, failed: list[tuple[StateDict, WeightsError]]) -> list[str]:
    """Return notes on networks that would have been preferred and do not fit."""
    return [
        f"The weights at {state.place!r} were not taken: they do not fit a whole network."
        for state, _ in failed
        if state.rank < chosen.state.rank and state.place
    ]


def _equal(a: StateDict, b: StateDict) -> bool:
    """Return whether two networks have equal tensors."""
    return a.tensors.keys() == b.tensors.keys() and all(
        tensor.shape == b.tensors[name].shape and torch.equal(tensor, b.tensors[name])
        for name, tensor in a.tensors.items()
    )


def _no_network(path: Path, content: FileContent) -> WeightsError:
    """Return the error for a file without the layers of a network."""
    states = state_dicts(content.content)
    if states:
        return WeightsError(
            f"{path} holds no convolution and no linear layer; expected a MobileNet.",
            remedy="Pass the checkpoint of a whole network.",
        )
    if content.stand_ins:
        return needs_code(path, content.stand_ins[:_SHOWN])
    return WeightsError(
        f"{path} holds no named tensors, but {_described(content.content)}; expected a state dict.",
        remedy="Save model.state_dict(), or a dictionary that has it as 'state_dict'.",
    )


def _described(found: object) -> str:
    """Describe what was found instead of tensors."""
    if isinstance(found, Mapping):
        keys = ", ".join(repr(key) for key in list(found)[:_SHOWN])
        return f"a dictionary of {keys}" if keys else "an empty dictionary"
    return f"a {type(found).__name__}"
