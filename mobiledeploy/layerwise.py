"""The int8 network layer by layer: in an `.onnx`, and against float.

In: the integer reference and images. Out: per layer, the codes that differ, or the noise there is.
A few images are enough: each shows a layer thousands of numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mobiledeploy.graph import find_units, trace
from mobiledeploy.progress import track
from mobiledeploy.verify.codes import compare_codes
from mobiledeploy.verify.layers import LayerErrors

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from mobiledeploy.quantize.reference import IntegerReference
    from mobiledeploy.types import FoldedModel, LayerError
    from mobiledeploy.verify.codes import LayerCodes

    Images = NDArray[np.float32]

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
    from mobiledeploy.runtimes.onnx_probe import OnnxProbe  # noqa: PLC0415 - .pte needs no onnx

    probe = OnnxProbe(path, list(reference.operators), optimize=optimize)
    layers: dict[str, LayerCodes] = {}
    for batch in in_batches(images[:LAYER_IMAGES]):
        expected = reference.layers(batch)
        found = probe.run(batch, {name: layer.codes for name, layer in expected.items()})
        for name, codes in found.items():
            known = expected[name]
            title = _title(reference, name)
            layer = compare_codes(title, known.codes, codes, known.half_way, limit)
            layers[name] = layers[name].plus(layer) if name in layers else layer
    return list(layers.values())


def layer_errors(
    reference: IntegerReference, equalized: FoldedModel, images: Images
) -> tuple[LayerError, ...]:
    """Return what quantization does to each layer.

    Args:
        reference: Of the int8 network.
        equalized: The float network that it was made from.
        images: The first of them are used.
    """
    traced = trace(equalized)
    (source,) = traced.graph.find_nodes(op="placeholder")
    titles = {
        operator: _title(reference, name) for name, (operator, _) in reference.operators.items()
    }
    errors = LayerErrors(traced, find_units(traced), titles)
    batches = in_batches(images[:LAYER_IMAGES])
    for batch in track(batches, "Comparing layers with float", len(batches)):
        real = {
            reference.operators[name][0]: layer.real
            for name, layer in reference.layers(batch).items()
        }
        real[""] = real.pop(source.name, batch)  # as it is where the stem is kept in float
        errors.add(batch, real)
    return errors.results()


def in_batches(images: Images) -> list[Images]:
    """Split images into batches that are run at once."""
    return np.array_split(images, max(1, -(-len(images) // _AT_ONCE)))


def _title(reference: IntegerReference, name: str) -> str:
    """Return what a layer is called: its module and operator, for example "classifier.1 linear"."""
    operator, module = reference.operators[name]
    return f"{module} {operator}".strip()
