"""A network laid beside a checkpoint: which layers correspond, and whose shapes agree."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from mobiledeploy.checkpoints.layers import Layer, layers_of, outlines
from mobiledeploy.checkpoints.match import arrange, has_names_of
from mobiledeploy.models.spec import ModelSpec

if TYPE_CHECKING:
    from mobiledeploy.checkpoints.open import Checkpoint

Build = Callable[[ModelSpec], nn.Module]
"""Builds the network of a specification."""

_NEARLY = 3  # layers of another shape: as many as an unusual stem or head changes


class Networks:
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
class Candidate:
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
        theirs, ours = last_output(self)
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


def align(spec: ModelSpec, checkpoint: Checkpoint, networks: Networks) -> Candidate:
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
    return Candidate(spec, target, tuple(aligned), 2 * common / (len(source) + len(target)))


def last_output(candidate: Candidate) -> tuple[Layer | None, Layer]:
    """Return the norms or convolutions (checkpoint's, network's) of the last block's output."""
    return norms(candidate)[-1 if candidate.spec.family == "v1" else -2]


def norms(candidate: Candidate) -> list[tuple[Layer | None, Layer]]:
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
