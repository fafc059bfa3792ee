"""The variants of a family that a checkpoint may be of: widths, roundings, stems and heads.

Input: the closest network so far. Output: networks to compare with the checkpoint next, the
likeliest first.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mobiledeploy.checkpoints.candidate import Candidate, Networks, align, last_output, norms
from mobiledeploy.models.blocks import make_divisible
from mobiledeploy.models.head import parse_head
from mobiledeploy.models.mobilenet_v1 import MIN_CHANNELS
from mobiledeploy.models.validate import MAX_WIDTH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mobiledeploy.checkpoints.open import Checkpoint
    from mobiledeploy.models.spec import ArchitectureOptions, ModelSpec

_USUAL_WIDTHS = (1.0, 0.75, 0.5, 0.25, 0.35, 1.4, 1.25, 1.3, 1.5, 2.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8)
_WIDTHS_TRIED = 4  # of the usual widths, those nearest to the estimate
_ROUNDINGS = (8, 4, 2, 1, 16)
# In every family the third norm from the end has the last block's widest channels, which are
# proportional to the width.
_WIDEST_NORM = -3


def variants(
    closest: Candidate, checkpoint: Checkpoint, networks: Networks
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
                for width in widths(align(spec, checkpoint, networks)):
                    scaled = align(replace(spec, width=width), checkpoint, networks)
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


def _usual_widths(unscaled: Candidate) -> list[float]:
    """Return width multipliers to try first: the usual ones near the estimate, and itself."""
    estimate = _estimated_width(unscaled)
    usual = sorted(_USUAL_WIDTHS, key=lambda width: abs(width - estimate))[:_WIDTHS_TRIED]
    return [*usual, *{round(estimate, 2), round(estimate, 3)} - {*usual, 0.0}]


def _unusual_widths(unscaled: Candidate) -> list[float]:
    """Return the multiples of 0.01 that give the last block the checkpoint's output channels."""
    spec = unscaled.spec
    theirs, ours = last_output(unscaled)
    assert theirs is not None
    widths = (i / 100 for i in range(1, round(100 * MAX_WIDTH)))
    return [width for width in widths if _scaled(spec, ours.shape[0] * width) == theirs.shape[0]]


def _scaled(spec: ModelSpec, channels: float) -> int:
    """Return the channels of a block's output by the family's rounding."""
    if spec.family == "v1":
        return max(MIN_CHANNELS, int(channels))
    return make_divisible(channels, spec.architecture.round_nearest)


def _estimated_width(unscaled: Candidate) -> float:
    """Return the width multiplier that the widest channels of the last block show."""
    theirs, ours = norms(unscaled)[_WIDEST_NORM]
    if theirs is None or theirs.is_norm != ours.is_norm:
        return 1.0
    return theirs.shape[0] / ours.shape[0]


def _with_own_ends(scaled: Candidate) -> Iterator[ModelSpec]:
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


def _other_width(candidate: Candidate, index: int | None) -> int | None:
    """Return the checkpoint's output channels at a layer if they differ from the network's."""
    theirs = None if index is None else candidate.aligned[index]
    if index is None or theirs is None or not theirs.is_map:
        return None
    return theirs.shape[0] if theirs.shape[0] != candidate.target[index].shape[0] else None


def _head_index(candidate: Candidate) -> int | None:
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
