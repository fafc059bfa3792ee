"""Compare the int8 codes of each layer of an `.onnx` with the integer reference's.

Each layer gets the reference's own inputs, so a difference shows in the layer that causes it. Codes
must be equal: no result of an int8 layer is near half-way between two codes. Only behind a layer
that is kept in float can it be. There a code may be one higher or lower where the exact number lies
next to half-way, and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mobiledeploy.parity.batches import in_batches

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from mobiledeploy.quantization.integer_reference import IntegerReference

    Inputs = NDArray[Any]  # images (N, C, H, W), or pixels in uint8

LAYER_IMAGES = 8
"""Number of images that layers are compared on."""
_LARGEST_DIFFERENCE = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCodes:
    """How one layer's codes compare with the integer reference's.

    Attributes:
        name: Module and operator, for example "classifier.1 linear".
        codes: Number of compared codes.
        differing: How many differ.
        unexplained: How many differ by more than float rounding can explain.
        max_difference: The largest difference, in codes.
    """

    name: str
    codes: int
    differing: int
    unexplained: int
    max_difference: int

    def plus(self, other: LayerCodes) -> LayerCodes:
        """Return the result of both batches together."""
        return LayerCodes(
            name=self.name,
            codes=self.codes + other.codes,
            differing=self.differing + other.differing,
            unexplained=self.unexplained + other.unexplained,
            max_difference=max(self.max_difference, other.max_difference),
        )


def compare_layers(
    path: Path,
    reference: IntegerReference,
    images: Inputs,
    max_half_way: float | None,
    *,
    optimize: bool,
) -> list[LayerCodes]:
    """Compare every layer of an `.onnx` with the reference's, each given the reference's inputs.

    Args:
        path: The artifact.
        reference: The integer reference of its network.
        images: Inputs of the artifact; the first `LAYER_IMAGES` are used.
        max_half_way: See `compare_codes`.
        optimize: Whether ONNX Runtime may fuse the layers into integer operators.

    Returns:
        One result per layer, in the graph's order.

    Raises:
        ArtifactError: the graph is not that of an int8 network.
        RuntimeFailedError: its layers have other shapes.
    """
    from mobiledeploy.parity.onnx_probe import OnnxProbe  # noqa: PLC0415 - a .pte needs no onnx

    probe = OnnxProbe(path, list(reference.operators), optimize=optimize)
    layers: dict[str, LayerCodes] = {}
    for batch in in_batches(images[:LAYER_IMAGES]):
        expected = reference.layers(batch)
        found = probe.run(batch, {name: layer.codes for name, layer in expected.items()})
        for name, codes in found.items():
            layer = compare_codes(
                reference.operators[name].title,
                expected[name].codes,
                codes,
                expected[name].half_way,
                max_half_way,
            )
            layers[name] = layers[name].plus(layer) if name in layers else layer
    return list(layers.values())


def compare_codes(
    name: str,
    expected: NDArray[np.int8],
    found: NDArray[np.int8],
    half_way: NDArray[np.float32],
    max_half_way: float | None,
) -> LayerCodes:
    """Compare one layer's codes.

    Args:
        name: Name of the layer.
        expected: The integer reference's codes, of any shape.
        found: The runtime's codes, in the same order; codes of another size all count as wrong.
        half_way: Distance of the exact numbers from half-way between two codes, in steps, shaped
            like `expected` (`integer_reference.Codes`).
        max_half_way: Up to which distance a difference of one code counts as float rounding; None
            for a runtime that computes in integers.
    """
    if found.size != expected.size:
        return LayerCodes(
            name=name,
            codes=expected.size,
            differing=expected.size,
            unexplained=expected.size,
            max_difference=_LARGEST_DIFFERENCE,
        )
    difference = np.abs(found.reshape(expected.shape).astype(np.int16) - expected)
    explained = np.zeros(expected.shape, bool)
    if max_half_way is not None:
        explained = (difference == 1) & (half_way.reshape(expected.shape) <= max_half_way)
    return LayerCodes(
        name=name,
        codes=expected.size,
        differing=int(np.count_nonzero(difference)),
        unexplained=int(np.count_nonzero((difference > 0) & ~explained)),
        max_difference=int(difference.max(initial=0)),
    )


def explain(layers: Sequence[LayerCodes]) -> str:
    """Return a sentence about the first layer with unexplained codes; empty if there is none."""
    differing = [layer for layer in layers if layer.unexplained]
    if not differing:
        return ""
    first = differing[0]
    return (
        f"The first layer that differs from the integer reference is {first.name}:"
        f" {first.differing} of {first.codes} codes differ, by up to {first.max_difference}, given"
        f" the reference's inputs ({len(differing)} of {len(layers)} layers differ)."
    )
