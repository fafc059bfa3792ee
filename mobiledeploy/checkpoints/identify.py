"""Identify a checkpoint: the network that its tensors fit, and what its dialect implies.

Input: a path, and a builder of networks. Output: `CheckpointInfo`. Invariant: what tensors cannot
show (strides, activations, padding, preprocessing) follows a convention of the dialect, and a note
says so.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from mobiledeploy.checkpoints.candidate import Build
from mobiledeploy.checkpoints.dialects import SEQUENTIAL, implied_options, implied_preprocessing
from mobiledeploy.checkpoints.infer import find_spec
from mobiledeploy.checkpoints.layers import layers_of, norm_eps_of
from mobiledeploy.checkpoints.match import has_names_of
from mobiledeploy.checkpoints.open import Checkpoint, dialect_name, open_checkpoint
from mobiledeploy.checkpoints.published import RESOLUTION, is_published
from mobiledeploy.errors import WeightsError
from mobiledeploy.models.spec import ArchitectureOptions, Family, ModelSpec
from mobiledeploy.network import Preprocessing


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointInfo:
    """The network and the conventions of a checkpoint.

    Attributes:
        path: Path of the file.
        family: Family of the network.
        width: Width multiplier.
        num_classes: Outputs of the classifier; 0 if there is none.
        in_channels: Channels of the input image.
        architecture: Differences from the published network that tensors or dialect show.
        dialect: Name of the naming scheme.
        preprocessing: Preprocessing of its images; None if neither names nor files tell.
        labels: Class names, if they came with the checkpoint.
        is_imagenet: Whether the file is known to classify ImageNet-1k.
        trained_at: Side of the images of its training in pixels; None if it is unknown.
        notes: What was inferred or assumed, one sentence each. The provenance of the weights has
            further notes on how the file was read.
    """

    path: Path
    family: Family
    width: float
    num_classes: int
    in_channels: int
    architecture: ArchitectureOptions
    dialect: str
    preprocessing: Preprocessing | None
    labels: tuple[str, ...] = ()
    is_imagenet: bool = False
    trained_at: int | None = None
    notes: tuple[str, ...] = ()


_ANTI_ALIASED = re.compile(r"v4_conv_(aa|blur)_")


def inspect_checkpoint(
    path: Path, build: Build, options: ArchitectureOptions | None = None
) -> CheckpointInfo:
    """Identify the network of a checkpoint.

    Args:
        path: Path of the file.
        build: Builds the network of a specification, for example `create_on_meta`; the tensors
            need no storage.
        options: Known options of the architecture, for example a custom row table.

    Raises:
        WeightsError: The file cannot be read, no network fits, or several do.
    """
    options = options or ArchitectureOptions()

    def fit(checkpoint: Checkpoint) -> tuple[ModelSpec, nn.Module, bool]:
        spec = find_spec(checkpoint, build, options)
        module = build(spec)
        by_name = has_names_of(checkpoint.layers, layers_of(module.state_dict()))
        _refuse_ambiguous(spec, checkpoint, by_name=by_name)
        return spec, module, by_name

    checkpoint, (spec, module, by_name) = open_checkpoint(path, fit)
    notes = [_summary(spec)]
    architecture = spec.architecture
    if not by_name:
        implied, reasons = implied_options(
            checkpoint.dialect,
            spec.family,
            checkpoint.layers,
            default_eps=norm_eps_of(module),
            config=checkpoint.config,
        )
        unsaid = {name: value for name, value in implied.items() if name not in options.changed}
        architecture = replace(architecture, **unsaid)
        notes += reasons
    return CheckpointInfo(
        path=path,
        family=spec.family,
        width=spec.width,
        num_classes=spec.num_classes,
        in_channels=spec.in_channels,
        architecture=architecture,
        dialect=dialect_name(checkpoint.dialect, spec.family, by_name=by_name),
        preprocessing=_preprocessing(spec, checkpoint, notes, by_name=by_name),
        labels=checkpoint.config.labels if checkpoint.config else (),
        is_imagenet=is_published(checkpoint.sha256)
        or (checkpoint.config is not None and checkpoint.config.is_imagenet),
        trained_at=_trained_at(checkpoint),
        notes=tuple(notes),
    )


def _trained_at(checkpoint: Checkpoint) -> int | None:
    if is_published(checkpoint.sha256):
        return RESOLUTION
    return None if checkpoint.config is None else checkpoint.config.resolution


def complete_spec(info: CheckpointInfo, spec: ModelSpec, given: Collection[str]) -> ModelSpec:
    """Complete a specification with the values of a checkpoint.

    Args:
        info: The identified checkpoint.
        spec: The requested specification.
        given: Names of the fields of `spec` that were set explicitly; the others are defaults.
            The family has no default, so it always counts as given.

    Raises:
        WeightsError: A field was given and the checkpoint has another value.
    """
    read_off = ("family", "width", "num_classes", "in_channels")
    found = {name: getattr(info, name) for name in read_off}
    asked = {name: getattr(spec, name) for name in read_off if name in {"family", *given}}
    contradictions = [name for name, value in asked.items() if value != found[name]]
    if contradictions:
        raise WeightsError(
            f"{info.path} has "
            + ", ".join(f"{name} {found[name]}" for name in contradictions)
            + "; requested was "
            + ", ".join(f"{name} {asked[name]}" for name in contradictions)
            + ".",
            remedy="Request the checkpoint's values (only the family is required), or pass another "
            "checkpoint.",
        )
    return replace(spec, **found, architecture=info.architecture)


def _refuse_ambiguous(spec: ModelSpec, checkpoint: Checkpoint, *, by_name: bool) -> None:
    """Raise WeightsError if the tensors belong to different networks."""
    if spec.family.startswith("v4") and _ANTI_ALIASED.search(checkpoint.architecture):
        raise WeightsError(
            f"{checkpoint.path} is by its name a MobileNetV4 with anti-aliasing, which is not "
            "supported: its strides are average pools or blurs.",
            remedy="Pass a checkpoint of a mobilenetv4_conv_small, _medium or _large.",
        )
    if by_name or checkpoint.dialect is not SEQUENTIAL or not spec.family.startswith("v3"):
        return
    raise WeightsError(
        f"{checkpoint.path} has the layers of a {spec.family}, but its names are neither "
        "torchvision's nor timm's. Some implementations squeeze and excite before the activation, "
        "others after it. The tensors are equal, the networks are not.",
        remedy="If it squeezes after the activation, as published, rename its keys to "
        "torchvision's. Otherwise it is not supported.",
    )


def _summary(spec: ModelSpec) -> str:
    """Describe the network of the tensors."""
    classes = f"{spec.num_classes} classes" if spec.num_classes else "no classifier"
    options = "".join(f", {name} {value}" for name, value in spec.architecture.changed.items())
    if spec.architecture.reduced_tail and not spec.architecture.dilated:
        options += " (tensors do not show whether it dilates)"
    return (
        f"The tensors are those of a {spec.family} of width {spec.width:g} with {classes} and "
        f"{spec.in_channels} input channels{options}."
    )


def _preprocessing(
    spec: ModelSpec, checkpoint: Checkpoint, notes: list[str], *, by_name: bool
) -> Preprocessing | None:
    """Return the preprocessing of the checkpoint's images; None if it is unknown."""
    found = _implied_preprocessing(spec, checkpoint, notes, by_name=by_name)
    if checkpoint.normalization is None:
        return found
    per_channel = {1: spec.in_channels, spec.in_channels: 1}.get(len(checkpoint.normalization.mean))
    if per_channel is None:
        raise WeightsError(
            f"{checkpoint.path} normalises its input with mean {checkpoint.normalization.mean}; "
            f"the network has {spec.in_channels} input channels.",
            remedy="Save the network without its normalisation, and pass --mean and --std.",
        )
    mean, std = (
        values * per_channel
        for values in (checkpoint.normalization.mean, checkpoint.normalization.std)
    )
    notes.append(
        f"The checkpoint normalises its input itself, with mean {mean} and std {std}: these are "
        "taken as --mean and --std. If its images were normalised before as well, pass the values "
        "of both steps together."
    )
    return replace(found or Preprocessing(), mean=mean, std=std)


def _implied_preprocessing(
    spec: ModelSpec, checkpoint: Checkpoint, notes: list[str], *, by_name: bool
) -> Preprocessing | None:
    """Return the preprocessing that the hub's description or the dialect implies."""
    if checkpoint.config and checkpoint.config.preprocessing:
        notes.append("The preprocessing is from the config.json beside the checkpoint.")
        return checkpoint.config.preprocessing
    if spec.in_channels != 3:
        return None
    implied = implied_preprocessing(
        checkpoint.dialect, spec.family, checkpoint.architecture, by_name=by_name
    )
    if spec.family.startswith("v4") and not implied:
        notes.append(
            "The preprocessing is assumed: timm's V4 weights differ in mean, std and crop, and "
            "only their full name tells. Keep config.json beside model.safetensors, or pass "
            "--mean, --std and --crop-pct."
        )
    if implied:
        notes.append(
            f"The preprocessing is the convention of such weights: mean {implied.mean}, "
            f"std {implied.std}, crop {implied.crop_pct:g}, {implied.interpolation}."
        )
    return implied
