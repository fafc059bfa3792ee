"""What a choice of weights means for the network: before it is built."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from mobiledeploy.checkpoints.identify import complete_spec, inspect_checkpoint
from mobiledeploy.checkpoints.infer import Build
from mobiledeploy.checkpoints.published import published_for
from mobiledeploy.errors import UsageError
from mobiledeploy.models.spec import ModelSpec
from mobiledeploy.network import Preprocessing


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """A specification that its weights fit, and what comes with them.

    Attributes:
        spec: Completed from the checkpoint's tensors.
        preprocessing: That the weights imply; None where they imply none.
        labels: That came with the checkpoint; often none.
        notes: What was inferred and assumed, one sentence each.
    """

    spec: ModelSpec
    preprocessing: Preprocessing | None = None
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def resolve(spec: ModelSpec, given: Collection[str], build: Build) -> Resolution:
    """Complete a specification from the weights that it names, and refuse contradictions.

    Args:
        spec: What was asked for.
        given: Names of the fields of `spec` that somebody set on purpose; the others are defaults.
            The family has none, so it always counts as given.
        build: Makes the network of a specification, for example `models.create_on_meta`; storage
            is not needed.

    Raises:
        UsageError: no weights are named, or nobody publishes ImageNet's for this variant.
        WeightsError: the checkpoint cannot be read, or contradicts what was given.
    """
    if not spec.weights:
        raise UsageError(
            "No weights are named: their name is empty.",
            remedy="Say imagenet, random, or the path of a checkpoint; is a variable unset?",
        )
    if spec.weights == "random":
        return Resolution(spec=spec)
    if spec.weights == "imagenet":
        return Resolution(spec=spec, preprocessing=published_for(spec).preprocessing)
    info = inspect_checkpoint(Path(spec.weights), build, spec.architecture)
    return Resolution(
        spec=complete_spec(info, spec, given),
        preprocessing=info.preprocessing,
        labels=info.labels,
        notes=info.notes,
    )
