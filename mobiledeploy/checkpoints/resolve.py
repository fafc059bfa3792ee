"""Complete a model specification from the weights that it names, before the network is built."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from mobiledeploy.checkpoints.candidate import Build
from mobiledeploy.checkpoints.identify import complete_spec, inspect_checkpoint
from mobiledeploy.checkpoints.published import RESOLUTION, published_for
from mobiledeploy.checkpoints.registry import fetch_registered, is_registered
from mobiledeploy.errors import UsageError
from mobiledeploy.models.spec import ModelSpec
from mobiledeploy.network import ImageSize, Preprocessing, sides_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """A specification that matches its weights, and what the weights imply.

    Attributes:
        spec: The specification, completed from the checkpoint's tensors.
        preprocessing: Preprocessing that the weights imply; None if they imply none.
        labels: Class names that came with the checkpoint; often empty.
        is_imagenet: Whether the weights are known to classify ImageNet-1k.
        notes: What was inferred or assumed, one sentence each.
    """

    spec: ModelSpec
    preprocessing: Preprocessing | None = None
    labels: tuple[str, ...] = ()
    is_imagenet: bool = False
    notes: tuple[str, ...] = ()


def resolve(spec: ModelSpec, given: Collection[str], build: Build) -> Resolution:
    """Complete a specification from the weights that it names, and refuse contradictions.

    Args:
        spec: The requested specification.
        given: Names of the fields of `spec` that were set explicitly; the others are defaults.
            The family has no default, so it always counts as given.
        build: Builds the network of a specification, for example `create_on_meta`; the tensors
            need no storage.

    Raises:
        UsageError: No weights are named, or none are published for this variant.
        WeightsError: The checkpoint cannot be read, or contradicts what was given.
    """
    if not spec.weights:
        raise UsageError(
            "The name of the weights is empty.",
            remedy="Pass imagenet, random, the name of a published checkpoint, or the path of a"
            " checkpoint. Is a variable unset?",
        )
    if spec.weights == "random":
        return Resolution(spec=spec)
    if spec.weights == "imagenet":
        return Resolution(
            spec=spec,
            preprocessing=published_for(spec).preprocessing,
            is_imagenet=True,
            notes=_other_resolution(RESOLUTION, spec.resolution),
        )
    notes: tuple[str, ...] = ()
    if is_registered(spec.weights):
        fetched = fetch_registered(spec.weights)
        spec, notes = replace(spec, weights=str(fetched.path)), fetched.notes
    info = inspect_checkpoint(Path(spec.weights), build, spec.architecture)
    return Resolution(
        spec=complete_spec(info, spec, given),
        preprocessing=info.preprocessing,
        labels=info.labels,
        is_imagenet=info.is_imagenet,
        notes=(*notes, *info.notes, *_other_resolution(info.trained_at, spec.resolution)),
    )


def _other_resolution(trained_at: int | None, used: ImageSize) -> tuple[str, ...]:
    """Return a note if weights run at another resolution than theirs."""
    if trained_at in (None, used):
        return ()
    note = (
        f"The weights were published for images of {trained_at}x{trained_at} pixels; this network"
        f" takes {'{}x{}'.format(*sides_of(used))}, which changes its accuracy."
    )
    return (note,)
