"""Infer the network of a checkpoint from its tensors.

Input: a checkpoint, and a builder of networks without storage. Output: `ModelSpec`. Invariant: the
network of the specification has exactly the checkpoint's layers.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from mobiledeploy.checkpoints.heads import (
    are_parallel,
    described_head,
    head_layers,
    head_of,
    is_chain,
)
from mobiledeploy.checkpoints.layers import Layer, layers_of, outlines
from mobiledeploy.checkpoints.match import arrange, differences, has_names_of
from mobiledeploy.checkpoints.open import Checkpoint
from mobiledeploy.errors import UsageError, WeightsError
from mobiledeploy.models.blocks import make_divisible
from mobiledeploy.models.head import ACTIVATIONS, NONE, head_outputs, parse_head
from mobiledeploy.models.mobilenet_v1 import MIN_CHANNELS
from mobiledeploy.models.spec import FAMILIES, ArchitectureOptions, ModelSpec
from mobiledeploy.models.validate import MAX_WIDTH

Build = Callable[[ModelSpec], nn.Module]

_ATTENTION = re.compile(r"blocks\.\d+\.\d+\.attn\b")  # of timm's hybrid V4
_MIN_SIMILARITY = 0.8  # share of common layers from which a checkpoint counts as a MobileNet

_USUAL_WIDTHS = (1.0, 0.75, 0.5, 0.25, 0.35, 1.4, 1.25, 1.3, 1.5, 2.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8)
_WIDTHS_TRIED = 4  # of the usual widths, those nearest to the estimate
_NEARLY = 3  # layers of another shape: as many as an unusual stem or head changes
_ROUNDINGS = (8, 4, 2, 1, 16)
# In every family the third norm from the end has the last block's widest channels, which are
# proportional to the width.
_WIDEST_NORM = -3


class _Networks:
    """Caches the layers of networks by specification."""

    def __init__(self, build: Build) -> None:
        self._build = build
        self._layers: dict[ModelSpec, tuple[Layer, ...]] = {}

    def layers(self, spec: ModelSpec) -> tuple[Layer, ...]:
        """Return the layers of a specification's network.

        Raises:
            UsageError: The specification is invalid.
        """
        if spec not in self._layers:
            self._layers[spec] = tuple(layers_of(self._build(spec).state_dict()))
        return self._layers[spec]


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A network aligned with a checkpoint's layers.

    Attributes:
        spec: The network.
        target: The network's layers.
        aligned: For each of the network's layers the checkpoint's, or None if there is none.
        similarity: Share of the layers of both sides that have a counterpart, 0 to 1.
    """

    spec: ModelSpec
    target: tuple[Layer, ...]
    aligned: tuple[Layer | None, ...]
    similarity: float

    @property
    def equal_shapes(self) -> int:
        """Return the number of aligned layers whose shapes agree."""
        return sum(
            theirs is not None and theirs.signature == ours.signature
            for theirs, ours in zip(self.aligned, self.target, strict=True)
        )

    @property
    def is_nearly_exact(self) -> bool:
        """Return whether all but a few shapes agree, and among them the last block's output."""
        differing = len(self.target) - self.equal_shapes
        theirs, ours = _last_output(self)
        agrees = theirs is not None and theirs.signature == ours.signature
        return agrees and differing <= _NEARLY

    @property
    def has_same_kinds(self) -> bool:
        """Return whether every layer has a counterpart of the same kind, whatever its channels."""
        return self.similarity == 1 and all(
            theirs is not None and theirs.outline == ours.outline
            for theirs, ours in zip(self.aligned, self.target, strict=True)
        )

    @property
    def is_exact(self) -> bool:
        """Return whether every layer has a counterpart of the same shape."""
        return self.similarity == 1 and self.equal_shapes == len(self.target)


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
    networks = _Networks(build)
    closest = _closest_family(checkpoint, networks, options)
    if closest.similarity < _MIN_SIMILARITY:
        raise WeightsError(
            f"{checkpoint.path} is not a MobileNet: of its {len(checkpoint.layers)} layers and the "
            f"{len(closest.target)} of the closest family, {closest.spec.family}, only "
            f"{closest.similarity:.0%} correspond.",
            remedy=_foreign_remedy(checkpoint),
        )
    best = closest
    for specs in _variants(closest, checkpoint, networks):
        for spec in specs:
            candidate = _align(spec, checkpoint, networks)
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


def _closest_family(
    checkpoint: Checkpoint, networks: _Networks, options: ArchitectureOptions
) -> _Candidate:
    """Return the family, with or without classifier, that shares most layers with a checkpoint."""
    best: _Candidate | None = None
    for spec in _families(options):
        try:
            candidate = _align(spec, checkpoint, networks)
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


def _variants(
    closest: _Candidate, checkpoint: Checkpoint, networks: _Networks
) -> Iterator[list[ModelSpec]]:
    """Yield networks of the closest family, those of one width together, the likeliest first.

    Input channels and classes are read from the tensors. The width, V3's width rule and reduced
    tail, and V2's rounding affect every layer and are tried. The channels of the stem and of the
    head are read from the tensors if nothing else fits.
    """
    base = closest.spec
    if (stem := closest.aligned[0]) and len(stem.shape) == 4:
        base = replace(base, in_channels=stem.shape[1])
    has_own_head = base.architecture.head is not None
    classifier = None if has_own_head or not base.num_classes else closest.aligned[-1]
    if classifier is not None and classifier.is_map:
        base = replace(base, num_classes=classifier.shape[0])
    rules, width_choices = [_published_rules(base)], [_usual_widths]
    if closest.has_same_kinds:  # otherwise hardly any width fits
        rules.append(_other_roundings(base))
        width_choices.append(_unusual_widths)
    for architectures in rules:
        for widths in width_choices:
            for architecture in architectures:
                spec = replace(base, architecture=architecture)
                for width in widths(_align(spec, checkpoint, networks)):
                    scaled = _align(replace(spec, width=width), checkpoint, networks)
                    yield [scaled.spec, *_with_own_ends(scaled)]


def _published_rules(spec: ModelSpec) -> list[ArchitectureOptions]:
    """Return the given options, and for V3 also those with the other width rules."""
    found = [spec.architecture]
    if spec.family.startswith("v3"):
        if spec.architecture.width_rule == "torchvision":
            found += [replace(each, width_rule="slim") for each in found]
        if not spec.architecture.reduced_tail:
            found += [replace(each, reduced_tail=True) for each in found]
    return found


def _other_roundings(spec: ModelSpec) -> list[ArchitectureOptions]:
    """Return the given options with the other roundings of V2's channels."""
    if spec.family != "v2":
        return []
    others = [n for n in _ROUNDINGS if n != spec.architecture.round_nearest]
    return [replace(spec.architecture, round_nearest=n) for n in others]


def _usual_widths(unscaled: _Candidate) -> list[float]:
    """Return width multipliers to try first: the usual ones near the estimate, and itself."""
    estimate = _estimated_width(unscaled)
    usual = sorted(_USUAL_WIDTHS, key=lambda width: abs(width - estimate))[:_WIDTHS_TRIED]
    return [*usual, *{round(estimate, 2), round(estimate, 3)} - {*usual, 0.0}]


def _unusual_widths(unscaled: _Candidate) -> list[float]:
    """Return the multiples of 0.01 that give the last block the checkpoint's output channels."""
    spec = unscaled.spec
    theirs, ours = _last_output(unscaled)
    assert theirs is not None
    widths = (i / 100 for i in range(1, round(100 * MAX_WIDTH)))
    return [width for width in widths if _scaled(spec, ours.shape[0] * width) == theirs.shape[0]]


def _scaled(spec: ModelSpec, channels: float) -> int:
    """Return the channels of a block's output by the family's rounding."""
    if spec.family == "v1":
        return max(MIN_CHANNELS, int(channels))
    return make_divisible(channels, spec.architecture.round_nearest)


def _estimated_width(unscaled: _Candidate) -> float:
    """Return the width multiplier that the widest channels of the last block show."""
    theirs, ours = _norms(unscaled)[_WIDEST_NORM]
    if theirs is None or theirs.is_norm != ours.is_norm:
        return 1.0
    return theirs.shape[0] / ours.shape[0]


def _last_output(candidate: _Candidate) -> tuple[Layer | None, Layer]:
    """Return the norms or convolutions (checkpoint's, network's) of the last block's output."""
    return _norms(candidate)[-1 if candidate.spec.family == "v1" else -2]


def _norms(candidate: _Candidate) -> list[tuple[Layer | None, Layer]]:
    """Return the pairs of (checkpoint layer, network layer) of a network's norms.

    Without norms they are those of the convolutions, which have the same channels.
    """
    pairs = zip(candidate.aligned, candidate.target, strict=True)
    without = candidate.spec.architecture.norm == "none"
    return [
        (theirs, ours)
        for theirs, ours in pairs
        if (ours.is_map if without else ours.is_norm) and not ours.name.startswith("classifier")
    ]


def _with_own_ends(scaled: _Candidate) -> Iterator[ModelSpec]:
    """Yield the network with the checkpoint's stem and head widths, where they differ.

    These are options of their own: timm never scales V3-Small's stem below 16 channels.
    """
    spec, options = scaled.spec, scaled.spec.architecture
    stems: list[dict[str, Any]] = [{}]
    heads: list[dict[str, Any]] = [{}]
    stem, head = _other_width(scaled, 0), _other_width(scaled, _head_index(scaled))
    if spec.family.startswith("v3") and not spec.num_classes:
        head = None  # a lone linear layer of another width is a classifier, no hidden layer
    if stem and options.stem_width is None:
        stems.append({"stem_width": stem})
    if head and options.head_width is None:
        heads.append({"head_width": head})
    if head and spec.family.startswith("v3") and options.hidden_width is None:
        heads.append({"hidden_width": head})  # unlike `head_width`, any number at any width
    for ends in (own_stem | own_head for own_head in heads for own_stem in stems):
        if ends:
            yield replace(spec, architecture=replace(options, **ends))


def _other_width(candidate: _Candidate, index: int | None) -> int | None:
    """Return the checkpoint's output channels at a layer if they differ from the network's."""
    theirs = None if index is None else candidate.aligned[index]
    if index is None or theirs is None or not theirs.is_map:
        return None
    return theirs.shape[0] if theirs.shape[0] != candidate.target[index].shape[0] else None


def _head_index(candidate: _Candidate) -> int | None:
    """Return the index of the layer before the classifier; V1 has none of its own."""
    if candidate.spec.family == "v1":
        return None
    maps = [index for index, layer in enumerate(candidate.target) if layer.is_map]
    head = candidate.spec.architecture.head
    if head is None:
        return maps[-2] if candidate.spec.num_classes else maps[-1]
    if candidate.spec.family.startswith("v3"):  # its hidden layer is part of the head
        return None
    return maps[-1 - sum(layer.size > 0 for layer in parse_head(head))]


def _align(spec: ModelSpec, checkpoint: Checkpoint, networks: _Networks) -> _Candidate:
    """Align a checkpoint's layers with those of a network."""
    target = networks.layers(spec)
    source = arrange(checkpoint.layers, target, checkpoint.dialect)
    aligned: list[Layer | None]
    if has_names_of(source, target):
        by_name = {layer.name: layer for layer in source}
        aligned = [by_name.get(layer.name) for layer in target]
    else:
        aligned = [None] * len(target)
        matcher = difflib.SequenceMatcher(a=outlines(source), b=outlines(target), autojunk=False)
        for a, b, size in matcher.get_matching_blocks():
            aligned[b : b + size] = source[a : a + size]
    common = sum(layer is not None for layer in aligned)
    return _Candidate(spec, target, tuple(aligned), 2 * common / (len(source) + len(target)))
