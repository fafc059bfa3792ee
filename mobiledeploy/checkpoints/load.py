"""Load weights into a network.

Input: a built network and its specification. Output: the network with the weights that the
specification names, and their provenance. Invariant: afterwards every parameter and every buffer
comes from the checkpoint, or the network is unchanged and an error says why.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from mobiledeploy.checkpoints.dialects import implied_options
from mobiledeploy.checkpoints.hub import fetch
from mobiledeploy.checkpoints.layers import COUNTER, layers_of, norm_eps_of, norms_of
from mobiledeploy.checkpoints.match import Matched, match
from mobiledeploy.checkpoints.open import Checkpoint, dialect_name, open_checkpoint
from mobiledeploy.checkpoints.published import published_for
from mobiledeploy.errors import WeightsError
from mobiledeploy.models.spec import ModelSpec
from mobiledeploy.network import WeightsProvenance

LARGEST = 1e12
"""No trained network has larger values; products of some of them overflow float32."""
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def load_weights(module: nn.Module, spec: ModelSpec) -> WeightsProvenance:
    """Load the weights that `spec.weights` names into `module`, in place.

    "random" leaves the module as it was initialised.

    Raises:
        UsageError: There are no ImageNet weights for this variant.
        WeightsError: The weights cannot be fetched, read, or mapped onto the network.
    """
    if spec.weights == "random":
        return WeightsProvenance(source="random", origin=f"seed {spec.seed}")
    if spec.weights == "imagenet":
        published = published_for(spec)
        fetched = fetch(published)
        checkpoint, dialect, notes = _fill(module, spec, fetched.path)
        return WeightsProvenance(
            source="imagenet",
            origin=published.url,
            sha256=checkpoint.sha256,
            dialect=dialect,
            notes=(*fetched.notes, *notes),
        )
    checkpoint, dialect, notes = _fill(module, spec, Path(spec.weights))
    return WeightsProvenance(
        source="file",
        origin=spec.weights,
        sha256=checkpoint.sha256,
        dialect=dialect,
        notes=(*checkpoint.notes, *notes),
    )


def _fill(module: nn.Module, spec: ModelSpec, path: Path) -> tuple[Checkpoint, str, list[str]]:
    """Copy a checkpoint's tensors into the network; return it, its dialect's name, and notes.

    Raises:
        WeightsError: Tensors do not fit or hold invalid values. The module is then unchanged.
    """
    target = layers_of(module.state_dict())

    def fit(checkpoint: Checkpoint) -> Matched:
        return match(checkpoint.layers, target, checkpoint.dialect)

    checkpoint, matched = open_checkpoint(path, fit)
    _refuse_bad_values(checkpoint)
    notes = [] if matched.by_name else _apply_conventions(module, spec, checkpoint)
    notes += _copy(matched)
    name = dialect_name(checkpoint.dialect, spec.family, by_name=matched.by_name)
    return checkpoint, name, notes


def _refuse_bad_values(checkpoint: Checkpoint) -> None:
    """Raise WeightsError for tensors with unusable values.

    Call it after the shapes were compared: a few bytes can describe a tensor of any size.
    """
    for layer in checkpoint.layers:
        for local, tensor in layer.tensors.items():
            if fault := _fault(local, tensor):
                name = f"{layer.name}.{local}".lstrip(".")
                raise WeightsError(
                    f"{checkpoint.path}: {name} {fault}.",
                    remedy="Pass a float checkpoint of a completed training.",
                )


def _fault(local: str, tensor: torch.Tensor) -> str:
    """Describe what is wrong with a tensor's content; empty if nothing is."""
    if local == COUNTER:
        return "" if tensor.numel() == 1 else f"has {tensor.numel()} values, expected 1"
    if tensor.dtype not in _FLOATS or tensor.layout != torch.strided or tensor.is_meta:
        kind = "has no values" if tensor.is_meta else f"is {tensor.dtype}, {tensor.layout}"
        return f"{kind}; expected dense floating point"
    bad = int((~torch.isfinite(tensor.float())).sum())  # float32, as in the network
    if bad:
        return f"has {bad} values of {tensor.numel()} that are NaN or infinite in float32"
    largest = float(tensor.abs().max()) if tensor.numel() else 0.0
    if largest > LARGEST:
        return f"has a value of {largest:.1e}; expected at most {LARGEST:.0e}"
    return _fault_of_variances(tensor) if local == "running_var" else ""


def _fault_of_variances(tensor: torch.Tensor) -> str:
    if (tensor < 0).any():
        return "is a variance and negative"
    return "" if tensor.any() else "is a variance and zero in every channel"


def _apply_conventions(module: nn.Module, spec: ModelSpec, checkpoint: Checkpoint) -> list[str]:
    """Apply the dialect's conventions to a built network, as far as that is possible.

    Raises:
        WeightsError: The network would have to be built differently.
    """
    options, found = spec.architecture, norm_eps_of(module)
    implied, _ = implied_options(
        checkpoint.dialect,
        spec.family,
        checkpoint.layers,
        default_eps=found,
        config=checkpoint.config,
    )
    for option in ("padding", "activation"):
        wanted = implied.get(option)
        if wanted is not None and getattr(options, option) != wanted:
            raise WeightsError(
                f"{checkpoint.path} has the names of {checkpoint.dialect.name}, whose networks "
                f"have {option} {wanted}; this one was built with {getattr(options, option)}.",
                remedy="Build it from the specification that `complete_spec` returns.",
            )
    eps = implied.get("norm_eps")
    if options.norm_eps is not None or eps is None:
        return []
    for norm in norms_of(module):
        norm.eps = eps
    return [f"BatchNorm's epsilon was set to {eps:g}, as in {checkpoint.dialect.name}."]


@torch.no_grad()
def _copy(matched: Matched) -> list[str]:
    """Copy the tensors of matched layers into the network's."""
    uncounted = 0
    converted = set()
    for theirs, ours in matched.pairs:
        for local, tensor in ours.tensors.items():
            if local not in theirs.tensors:  # only BN's counter may be missing: `Layer.is_norm`
                tensor.zero_()
                uncounted += 1
                continue
            source = theirs.tensors[local]
            tensor.copy_(source.reshape(tensor.shape))
            if source.dtype != tensor.dtype:
                converted.add(str(source.dtype).removeprefix("torch."))
    total = sum(len(ours.tensors) for _, ours in matched.pairs)
    notes = []
    if matched.head:
        pairs = ", ".join(f"{theirs} as {ours}" for theirs, ours in matched.head.items())
        notes.append(f"The classifier has other names and was assumed to be as published: {pairs}.")
    notes.append(f"{total - uncounted} of {total} tensors were loaded from the checkpoint.")
    if uncounted:
        notes.append(
            f"The checkpoint has no {COUNTER} for {uncounted} BatchNorm layers; "
            "inference does not use it."
        )
    if converted:
        notes.append(f"Values were converted from {', '.join(sorted(converted))}.")
    return notes
