"""Weights into a network.

Input: a network as it was built, and its specification. Output: the same network with the weights
that the specification names, and where they came from. Invariant: afterwards every parameter and
every buffer holds what the checkpoint says, or the network is as it was and an error says why.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from mobiledeploy.checkpoints.dialects import implied_options
from mobiledeploy.checkpoints.hub import fetch
from mobiledeploy.checkpoints.layers import COUNTER, layers_of, norm_eps_of, norms_of
from mobiledeploy.checkpoints.match import Matched, match
from mobiledeploy.checkpoints.published import published_for
from mobiledeploy.checkpoints.read import Checkpoint, dialect_name, open_checkpoint
from mobiledeploy.errors import WeightsError
from mobiledeploy.models.spec import ModelSpec
from mobiledeploy.network import WeightsProvenance

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def load_weights(module: nn.Module, spec: ModelSpec) -> WeightsProvenance:
    """Load the weights that `spec.weights` names into `module`, in place.

    "random" leaves the module as its initialisation made it.

    Raises:
        UsageError: there are no ImageNet weights for this variant.
        WeightsError: they cannot be had, read, or mapped onto the network.
    """
    if spec.weights == "random":
        return WeightsProvenance(source="random", origin=f"seed {spec.seed}")
    if spec.weights == "imagenet":
        published = published_for(spec)
        fetched = fetch(published)
        checkpoint = open_checkpoint(fetched.path)
        dialect, notes = _fill(module, spec, checkpoint)
        return WeightsProvenance(
            source="imagenet",
            origin=published.url,
            sha256=checkpoint.sha256,
            dialect=dialect,
            notes=(*fetched.notes, *notes),
        )
    checkpoint = open_checkpoint(Path(spec.weights))
    dialect, notes = _fill(module, spec, checkpoint)
    return WeightsProvenance(
        source="file",
        origin=spec.weights,
        sha256=checkpoint.sha256,
        dialect=dialect,
        notes=(*checkpoint.notes, *notes),
    )


def _fill(module: nn.Module, spec: ModelSpec, checkpoint: Checkpoint) -> tuple[str, list[str]]:
    """Copy a checkpoint's tensors; return the dialect's name and notes.

    Raises:
        WeightsError: they do not fit, or are no numbers. The module is then as it was.
    """
    matched = match(checkpoint.layers, layers_of(module.state_dict()), checkpoint.dialect)
    _refuse_bad_values(checkpoint)
    notes = [] if matched.by_name else _apply_conventions(module, spec, checkpoint)
    notes += _copy(matched)
    return dialect_name(checkpoint.dialect, spec.family, by_name=matched.by_name), notes


def _refuse_bad_values(checkpoint: Checkpoint) -> None:
    """Raise WeightsError for tensors that hold no numbers to compute with.

    Only after shapes were compared: a few bytes can describe a tensor that fills any memory.
    """
    for layer in checkpoint.layers:
        for local, tensor in layer.tensors.items():
            if fault := _fault(local, tensor):
                name = f"{layer.name}.{local}".lstrip(".")
                raise WeightsError(
                    f"{checkpoint.path}: {name} {fault}.",
                    remedy="Give a float checkpoint of a network that was trained to its end; "
                    "this one is damaged, or was made for something else.",
                )


def _fault(local: str, tensor: torch.Tensor) -> str:
    """Say what is wrong with a tensor's content; nothing where it is sound."""
    if local == COUNTER:
        return "" if tensor.numel() == 1 else f"has {tensor.numel()} values, expected 1"
    if tensor.dtype not in _FLOATS or tensor.layout != torch.strided or tensor.is_meta:
        kind = "has no values" if tensor.is_meta else f"is {tensor.dtype}, {tensor.layout}"
        return f"{kind}; expected dense floating point"
    bad = int((~torch.isfinite(tensor.float())).sum())  # as the network will hold them
    if bad:
        return f"has {bad} values of {tensor.numel()} that are NaN or infinite in float32"
    return "is a variance and negative" if local == "running_var" and (tensor < 0).any() else ""


def _apply_conventions(module: nn.Module, spec: ModelSpec, checkpoint: Checkpoint) -> list[str]:
    """Make the network do what the dialect's does, as far as a built network can be changed.

    Raises:
        WeightsError: it would have to be built differently.
    """
    options, found = spec.architecture, norm_eps_of(module)
    implied, _ = implied_options(
        checkpoint.dialect, spec.family, checkpoint.layers, default_eps=found
    )
    for option in ("padding", "activation"):
        wanted = implied.get(option)
        if wanted is not None and getattr(options, option) != wanted:
            raise WeightsError(
                f"{checkpoint.path} speaks {checkpoint.dialect.name}, whose networks have "
                f"{option} {wanted}; the network was built with {getattr(options, option)}.",
                remedy="Build it from the specification that `complete_spec` returns.",
            )
    eps: float = implied.get("norm_eps", found)
    if options.norm_eps is not None or eps == found:
        return []
    for norm in norms_of(module):
        norm.eps = eps
    return [f"BN's epsilon was set to {eps:g}, as in {checkpoint.dialect.name}."]


@torch.no_grad()
def _copy(matched: Matched) -> list[str]:
    """Copy the tensors of matched layers into the network's."""
    uncounted = 0
    converted = set()
    for theirs, ours in matched.pairs:
        for local, tensor in ours.tensors.items():
            if local not in theirs.tensors:  # only BN's counter may be, see `Layer.is_norm`
                tensor.zero_()
                uncounted += 1
                continue
            source = theirs.tensors[local]
            tensor.copy_(source.reshape(tensor.shape))
            if source.dtype != tensor.dtype:
                converted.add(str(source.dtype).removeprefix("torch."))
    total = sum(len(ours.tensors) for _, ours in matched.pairs)
    notes = [f"{total - uncounted} of {total} tensors came from the checkpoint, all of its own."]
    if uncounted:
        notes.append(f"It has no {COUNTER} for {uncounted} BN layers; inference does not use it.")
    if converted:
        notes.append(f"Values were converted from {', '.join(sorted(converted))}.")
    return notes
