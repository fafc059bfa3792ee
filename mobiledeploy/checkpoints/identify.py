"""What a checkpoint is: the network that its tensors fit, and what its dialect implies.

Input: a path, and a builder of networks. Output: `CheckpointInfo`. Invariant: nothing is guessed
silently: what tensors cannot show (strides, activations, padding, preprocessing) comes from a
convention of the dialect, and a note says so.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from mobiledeploy.checkpoints.dialects import SEQUENTIAL, implied_options, implied_preprocessing
from mobiledeploy.checkpoints.infer import Build, find_spec
from mobiledeploy.checkpoints.layers import layers_of, norm_eps_of
from mobiledeploy.checkpoints.match import has_names_of
from mobiledeploy.checkpoints.read import Checkpoint, dialect_name, open_checkpoint
from mobiledeploy.errors import WeightsError
from mobiledeploy.models.spec import ArchitectureOptions, Family, ModelSpec
from mobiledeploy.network import Preprocessing


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointInfo:
    """What a checkpoint is.

    Attributes:
        path: Of the file.
        architecture: Departures from the published network that its tensors or its dialect show.
        dialect: Which naming scheme it speaks.
        preprocessing: What its images are to be like; None where neither names nor files tell.
        labels: Names of its classes, where it came with them.
        notes: What was inferred and what was assumed, one sentence each. What was unwrapped, and
            which tensors were used, is in the notes of the weights' provenance.
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
    notes: tuple[str, ...] = ()


def inspect_checkpoint(
    path: Path, build: Build, options: ArchitectureOptions | None = None
) -> CheckpointInfo:
    """Find out which network a checkpoint belongs to.

    Args:
        path: Of the file.
        build: Makes the network of a specification, for example `models.create_on_meta`; storage
            is not needed.
        options: What is known of the architecture already, for example a row table of one's own.

    Raises:
        WeightsError: it cannot be read, no network fits, or its dialect leaves open which one.
    """
    options = options or ArchitectureOptions()
    checkpoint = open_checkpoint(path)
    spec = find_spec(checkpoint, build, options)
    module = build(spec)
    by_name = has_names_of(checkpoint.layers, layers_of(module.state_dict()))
    _refuse_ambiguous(spec, checkpoint, by_name=by_name)
    notes = [_summary(spec)]
    architecture = spec.architecture
    if not by_name:
        implied, reasons = implied_options(
            checkpoint.dialect, spec.family, checkpoint.layers, default_eps=norm_eps_of(module)
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
        notes=tuple(notes),
    )


def complete_spec(info: CheckpointInfo, spec: ModelSpec, given: Collection[str]) -> ModelSpec:
    """Fill in what a checkpoint says about its network, and refuse what contradicts it.

    Args:
        info: Of the checkpoint.
        spec: What was asked for.
        given: Names of the fields of `spec` that somebody set on purpose; the others are defaults.
            The family has none, so it always counts as given.

    Raises:
        WeightsError: a field was given and the checkpoint has another value.
    """
    read_off = ("family", "width", "num_classes", "in_channels")
    found = {name: getattr(info, name) for name in read_off}
    asked = {name: getattr(spec, name) for name in read_off if name in {"family", *given}}
    contradictions = [name for name, value in asked.items() if value != found[name]]
    if contradictions:
        raise WeightsError(
            f"{info.path} has "
            + ", ".join(f"{name} {found[name]}" for name in contradictions)
            + "; asked for was "
            + ", ".join(f"{name} {asked[name]}" for name in contradictions)
            + ".",
            remedy="Ask for what the checkpoint has (only the family needs to be said), or give "
            "the one that you mean.",
        )
    return replace(spec, **found, architecture=info.architecture)


def _refuse_ambiguous(spec: ModelSpec, checkpoint: Checkpoint, *, by_name: bool) -> None:
    """Raise WeightsError where equal tensors belong to different networks."""
    if by_name or checkpoint.dialect is not SEQUENTIAL or not spec.family.startswith("v3"):
        return
    raise WeightsError(
        f"{checkpoint.path} has the layers of a {spec.family}, but its names are neither "
        "torchvision's nor timm's. Some implementations squeeze and excite before the activation, "
        "others after it: tensors do not show which, and the two are different networks.",
        remedy="If it squeezes after the activation, as published, rename its keys to "
        "torchvision's. Otherwise it cannot be deployed.",
    )


def _summary(spec: ModelSpec) -> str:
    """Say what the tensors showed."""
    classes = f"{spec.num_classes} classes" if spec.num_classes else "no classifier"
    options = "".join(f", {name} {value}" for name, value in spec.architecture.changed.items())
    if spec.architecture.reduced_tail and not spec.architecture.dilated:
        options += " (whether it dilates, tensors do not show)"
    return (
        f"The tensors are those of a {spec.family} of width {spec.width:g} with {classes} and "
        f"{spec.in_channels} input channels{options}."
    )


def _preprocessing(
    spec: ModelSpec, checkpoint: Checkpoint, notes: list[str], *, by_name: bool
) -> Preprocessing | None:
    """Return what the checkpoint's images are to be like, as far as it is known."""
    if checkpoint.config:
        notes.append("The preprocessing is that of the config.json beside the checkpoint.")
        return checkpoint.config.preprocessing
    if spec.in_channels != 3:
        return None
    implied = implied_preprocessing(
        checkpoint.dialect, spec.family, checkpoint.architecture, by_name=by_name
    )
    if implied:
        notes.append(
            f"The preprocessing is the usual one of such weights: mean {implied.mean}, "
            f"std {implied.std}, crop {implied.crop_pct:g}, {implied.interpolation}."
        )
    return implied
