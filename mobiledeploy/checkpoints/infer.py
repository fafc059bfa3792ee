"""Infer the network of a checkpoint from its tensors.

Input: a checkpoint, and a builder of networks without storage. Output: `ModelSpec`. Invariant: the
network of the specification has exactly the checkpoint's layers.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from mobiledeploy.checkpoints.candidate import Build, Candidate, Networks, align
from mobiledeploy.checkpoints.heads import (
    are_parallel,
    described_head,
    head_layers,
    head_of,
    is_chain,
)
from mobiledeploy.checkpoints.match import differences
from mobiledeploy.checkpoints.variants import variants
from mobiledeploy.errors import UsageError, WeightsError
from mobiledeploy.models.head import ACTIVATIONS, NONE, head_outputs
from mobiledeploy.models.spec import FAMILIES, ArchitectureOptions, ModelSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mobiledeploy.checkpoints.open import Checkpoint

_ATTENTION = re.compile(r"blocks\.\d+\.\d+\.attn\b")  # of timm's hybrid V4
_MIN_SIMILARITY = 0.8  # share of common layers from which a checkpoint counts as a MobileNet


def find_spec(checkpoint: Checkpoint, build: Build, options: ArchitectureOptions) -> ModelSpec:
    """Return the network whose layers are exactly those of a checkpoint.

    Args:
        checkpoint: The opened checkpoint.
        build: Builds the network of a specification; the tensors need no storage.
        options: Known options of the architecture, for example a custom row table.

    Raises:
        WeightsError: No network has these layers; the text compares them with the closest one.
    """
    _refuse_attention(checkpoint)
    networks = Networks(build)
    closest = _closest_family(checkpoint, networks, options)
    if closest.similarity < _MIN_SIMILARITY:
        raise WeightsError(
            f"{checkpoint.path} is not a MobileNet: of its {len(checkpoint.layers)} layers and the "
            f"{len(closest.target)} of the closest family, {closest.spec.family}, only "
            f"{closest.similarity:.0%} correspond.",
            remedy=_foreign_remedy(checkpoint),
        )
    best = closest
    for specs in variants(closest, checkpoint, networks):
        for spec in specs:
            candidate = align(spec, checkpoint, networks)
            if candidate.is_exact:
                return spec
            best = max(best, candidate, key=lambda each: (each.similarity, each.equal_shapes))
        if best.is_nearly_exact:  # another width or rounding changes most layers
            break
    if options.head is None:
        _refuse_several_heads(checkpoint, build, options)
        with_head = _with_own_head(checkpoint, build, options)
        if with_head is not None:
            return with_head
    raise WeightsError(
        f"{checkpoint.path} fits no network. Compared with the closest, a {best.spec.family} of "
        f"width {best.spec.width:g}, it has "
        f"{differences(checkpoint.layers, best.target, checkpoint.dialect)}.",
        remedy="Save the complete state dict of the network alone: every tensor has to be used. "
        "For a custom row table, pass the --config FILE that it was trained with.",
    )


def _closest_family(
    checkpoint: Checkpoint, networks: Networks, options: ArchitectureOptions
) -> Candidate:
    """Return the family, with or without classifier, that shares most layers with a checkpoint."""
    best: Candidate | None = None
    for spec in _families(options):
        try:
            candidate = align(spec, checkpoint, networks)
        except UsageError:  # the options belong to another family
            continue
        if best is None or candidate.similarity > best.similarity:
            best = candidate
        if best.similarity == 1:
            break
    if best is None:
        raise UsageError(f"No family has the architecture options {', '.join(options.changed)}.")
    return best


def _families(options: ArchitectureOptions) -> Iterator[ModelSpec]:
    """Yield a specification of each family, the usual variants first."""
    for num_classes in (1000, 0) if options.head is None else (head_outputs(options.head),):
        for family in FAMILIES:
            yield ModelSpec(family=family, num_classes=num_classes, architecture=options)
    if options.se_gate == "hard-sigmoid":
        for spec in _families(replace(options, se_gate="sigmoid")):
            if spec.family.startswith("v3"):
                yield spec


def _with_own_head(
    checkpoint: Checkpoint, build: Build, options: ArchitectureOptions
) -> ModelSpec | None:
    """Return the network if only its head is another one; None if more differs.

    Tensors show the layers of a head, but not the activations between linear layers.

    Raises:
        WeightsError: A head with several linear layers would fit; the text names it.
    """
    layers = head_of(checkpoint.layers)
    described = ",".join(map(str, layers)) or NONE
    linears = [layer for layer in layers if layer.size]
    between = [layer for layer in layers if layer.size or layer.kind == "batchnorm"]
    try:
        spec = find_spec(checkpoint, build, replace(options, head=described))
    except (WeightsError, UsageError):
        return None
    if len(linears) < 2:
        return spec
    written = described_head(between)
    shapes = ", ".join(
        f"{layer.name} {tuple(layer.tensors['weight'].shape)}"
        for layer in head_layers(checkpoint.layers)
    )
    raise WeightsError(
        f"{checkpoint.path} has a {spec.family} of width {spec.width:g} and a head of its own: "
        f"{shapes}. Tensors do not show the activations in it.",
        remedy=f'Pass --head "{written}" with the activation of the training '
        f"({', '.join(ACTIVATIONS)}) in place of ACTIVATION"
        + (", before or behind batchnorm as it was there." if len(between) > len(linears) else "."),
    )


def _refuse_several_heads(
    checkpoint: Checkpoint, build: Build, options: ArchitectureOptions
) -> None:
    """Raise WeightsError for a network in which several linear layers read the features."""
    head = head_layers(checkpoint.layers)
    if not are_parallel(head) or is_chain(head):
        return
    body = [layer for layer in checkpoint.layers if layer not in head]
    try:
        spec = find_spec(
            replace(checkpoint, layers=tuple(body)), build, replace(options, head=NONE)
        )
    except (WeightsError, UsageError):
        return
    shapes = ", ".join(f"{layer.name} {layer.shape[:2]}" for layer in head)
    raise WeightsError(
        f"{checkpoint.path} has a {spec.family} of width {spec.width:g} and several heads: "
        f"{shapes}. A network has one output here.",
        remedy="Save the network with one of the heads, or export it from code that returns one "
        "output: mobiledeploy export net.py:create.",
    )


def _refuse_attention(checkpoint: Checkpoint) -> None:
    """Raise WeightsError for a hybrid V4."""
    attention = [layer.name for layer in checkpoint.layers if _ATTENTION.match(layer.name)]
    if attention:
        raise WeightsError(
            f"{checkpoint.path} is a MobileNetV4 hybrid: {attention[0]} belongs to an attention "
            "layer. Attention is not supported.",
            remedy="Pass a checkpoint of a mobilenetv4_conv_small, _medium or _large.",
        )


def _foreign_remedy(checkpoint: Checkpoint) -> str:
    """Return what to do about layers that no family has."""
    remedy = (
        "Pass a checkpoint of MobileNet V1, V2, V3 or V4. For a custom row table, pass also the"
        " --config FILE that it was trained with."
    )
    if any(layer.is_norm for layer in checkpoint.layers):
        return remedy
    return f"{remedy} The checkpoint has no BatchNorm; `norm: none` in that file says so."
