"""Layer by layer: are a runtime's codes those of the integer reference, and if not, may they be?

In: the codes of both, every layer computed from the same inputs. Out: per layer, how many differ
and how many of these no rounding explains.

A runtime that computes in integers has no excuse. One that computes the same layer in float rounds
sums that the reference has exactly; a code can then come out one higher or lower where the exact
number lies next to half-way, and nowhere else. Measured over all families the distance stays below
1e-4 steps; a weight that is one code off moves thousands of sums by a hundred times as much.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from mobiledeploy.quantization.integer_reference import IntegerReference

    Images = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCodes:
    """One layer's codes, over all images that were looked at.

    Attributes:
        name: Of the layer, for people.
        codes: How many were compared.
        differing: How many differ.
        unexplained: How many differ by more than a rounding can explain.
        max_apart: The largest difference, in codes.
    """

    name: str
    codes: int
    differing: int
    unexplained: int
    max_apart: int

    def plus(self, other: LayerCodes) -> LayerCodes:
        """Return both batches together."""
        return LayerCodes(
            name=self.name,
            codes=self.codes + other.codes,
            differing=self.differing + other.differing,
            unexplained=self.unexplained + other.unexplained,
            max_apart=max(self.max_apart, other.max_apart),
        )


def compare_codes(
    name: str,
    expected: NDArray[np.int8],
    found: NDArray[np.int8],
    half_way: NDArray[np.float32],
    max_half_way: float,
) -> LayerCodes:
    """Compare one layer's codes.

    Args:
        name: Of the layer.
        expected: The integer reference's.
        found: The runtime's, in the same shape or one that holds the same numbers.
        half_way: How far from half-way the exact numbers lay, in steps (`reference.Codes`).
        max_half_way: Up to where a difference of one is rounding; below 0 nothing is.
    """
    if found.size != expected.size:
        everything = expected.size
        return LayerCodes(
            name=name,
            codes=everything,
            differing=everything,
            unexplained=everything,
            max_apart=255,
        )
    apart = np.abs(found.reshape(expected.shape).astype(np.int16) - expected)
    excused = (apart == 1) & (half_way.reshape(expected.shape) <= max_half_way)
    return LayerCodes(
        name=name,
        codes=expected.size,
        differing=int(np.count_nonzero(apart)),
        unexplained=int(np.count_nonzero((apart > 0) & ~excused)),
        max_apart=int(apart.max(initial=0)),
    )


def explain(layers: Sequence[LayerCodes]) -> str:
    """Return a sentence about the first layer with unexplained codes; empty where there is none."""
    bad = [layer for layer in layers if layer.unexplained]
    if not bad:
        return ""
    first = bad[0]
    return (
        f"The first layer that computes something else is {first.name}: {first.differing} of"
        f" {first.codes} codes differ, by up to {first.max_apart}, given the right inputs"
        f" ({len(bad)} of {len(layers)} layers do)."
    )


LAYER_IMAGES = 8
_AT_ONCE = 2  # more at once no longer fit the caches: slower per image


def layer_codes(
    path: Path, reference: IntegerReference, images: Images, limit: float, *, optimize: bool
) -> list[LayerCodes]:
    """Compare every layer of an `.onnx` with the reference's, each from the reference's codes.

    Args:
        path: The file.
        reference: Of the network that it should hold.
        images: The first of them are used.
        limit: Up to how far from half-way a difference is rounding (see `compare_codes`).
        optimize: Whether ONNX Runtime may fuse the layers into integer operators.

    Raises:
        ArtifactError: the graph is not that of an int8 network.
        RuntimeFailedError: its layers have other shapes.
    """
    from mobiledeploy.parity.onnx_probe import OnnxProbe  # noqa: PLC0415 - .pte needs no onnx

    probe = OnnxProbe(path, list(reference.operators), optimize=optimize)
    layers: dict[str, LayerCodes] = {}
    for batch in in_batches(images[:LAYER_IMAGES]):
        expected = reference.layers(batch)
        found = probe.run(batch, {name: layer.codes for name, layer in expected.items()})
        for name, codes in found.items():
            known = expected[name]
            title = title_of(reference, name)
            layer = compare_codes(title, known.codes, codes, known.half_way, limit)
            layers[name] = layers[name].plus(layer) if name in layers else layer
    return list(layers.values())


def in_batches(images: Images) -> list[Images]:
    """Split images into batches that are run at once."""
    return np.array_split(images, max(1, -(-len(images) // _AT_ONCE)))


def title_of(reference: IntegerReference, name: str) -> str:
    """Return what a layer is called: its module and operator, for example "classifier.1 linear"."""
    operator, module = reference.operators[name]
    return f"{module} {operator}".strip()
