"""The metadata inside an artifact, so that an app can use the artifact without its manifest.

ONNX has it in `metadata_props`, `.tflite` in its metadata, `.pte` in constant methods that return
UTF-8 bytes:

    mobiledeploy.metadata / mobiledeploy_metadata    one JSON document, see `describe`
    mobiledeploy.labels   / mobiledeploy_labels      class names, one per line, if known; in `.pte`
                                                     compressed with zlib
    mobiledeploy.versions                            ONNX only: opset, IR version, and the oldest
                                                     ONNX Runtime known to load them, as JSON
"""

from __future__ import annotations

import json
import zlib
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, cast

from mobiledeploy.artifact.onnx_versions import oldest_onnxruntime
from mobiledeploy.errors import ArtifactError
from mobiledeploy.network import INPUT_NAME, OUTPUT_NAME, FoldedModel, QuantizedModel

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from mobiledeploy.network import InputSpec

SCHEMA = 1
METADATA = "metadata"
LABELS = "labels"
VERSIONS = "versions"


def describe(model: QuantizedModel | FoldedModel) -> dict[str, object]:
    """Return the JSON document that artifacts of all formats hold."""
    info = model.info
    int8 = isinstance(model, QuantizedModel)
    kept = model.recipe.float_layers if isinstance(model, QuantizedModel) else ()
    document: dict[str, object] = {
        "schema": SCHEMA,
        "name": info.name,
        "family": info.architecture,
        "precision": "int8" if int8 else "fp32",
        "input": describe_input(info.input),
        "output": {"name": info.outputs[0].name, "classes": info.classes},
        "weights": {
            "source": info.provenance.source,
            "sha256": info.provenance.sha256,
        },
        "encodings_sha256": model.encodings_digest if isinstance(model, QuantizedModel) else "",
    }
    if isinstance(model, QuantizedModel):
        document["margin"] = asdict(model.margin)
    if not info.is_plain:
        document["outputs"] = [
            {
                "name": each.name,
                "task": each.task,
                "shape": each.shape,
                "activation": each.activation,
            }
            for each in info.outputs
        ]
    return document | ({"float_layers": list(kept)} if kept else {})


def describe_input(image: InputSpec) -> dict[str, object]:
    """Return what an app has to know about the input.

    For pixels there is no mean and std at the usual place, so that no app normalises twice.
    """
    preprocessing, format_ = image.preprocessing, image.format
    document: dict[str, object] = {
        "name": INPUT_NAME,
        "layout": format_.layout,
        "channels": image.folded_shape[1],
        **image.resizing,
        "interpolation": preprocessing.interpolation,
    }
    normalisation = {"mean": preprocessing.mean, "std": preprocessing.std}
    if not format_.is_pixels:
        return document | normalisation
    pixels = {"format": format_.name, "element": format_.element, "order": format_.order}
    return document | pixels | {"folded": normalisation}


def for_onnx(
    model: QuantizedModel | FoldedModel, opsets: Mapping[str, int], ir_version: int
) -> Mapping[str, str]:
    """Return the entries of `metadata_props`, with the versions that a runtime has to know."""
    versions = {
        "opset": opsets[""],
        "ir_version": ir_version,
        "oldest_onnxruntime": oldest_onnxruntime(opsets, ir_version),
    }
    entries = {
        f"mobiledeploy.{METADATA}": json.dumps(describe(model)),
        f"mobiledeploy.{VERSIONS}": json.dumps(versions),
    }
    if model.info.labels:
        entries[f"mobiledeploy.{LABELS}"] = "\n".join(model.info.labels)
    return entries


def for_tflite(model: QuantizedModel | FoldedModel) -> Mapping[str, bytes]:
    """Return the entries of the file's metadata; its images are (H, W, C)."""
    document = describe(model)
    document["input"] = {**cast("dict[str, object]", document["input"]), "layout": "NHWC"}
    entries = {f"mobiledeploy.{METADATA}": json.dumps(document).encode()}
    if model.info.labels:
        entries[f"mobiledeploy.{LABELS}"] = "\n".join(model.info.labels).encode()
    return entries


def for_executorch(model: QuantizedModel | FoldedModel) -> Mapping[str, bytes]:
    """Return the names of the constant methods and the bytes that they return."""
    entries = {f"mobiledeploy_{METADATA}": json.dumps(describe(model)).encode()}
    if model.info.labels:
        entries[f"mobiledeploy_{LABELS}"] = zlib.compress("\n".join(model.info.labels).encode(), 9)
    return entries


def output_names(metadata: Mapping[str, object]) -> tuple[str, ...]:
    """Return the names of an artifact's outputs, in order.

    Args:
        metadata: The document in the artifact; empty for a file of another exporter.
    """
    outputs = cast("list[dict[str, str]]", metadata.get("outputs", []))
    return tuple(output["name"] for output in outputs) or (OUTPUT_NAME,)


@contextmanager
def metadata_errors_explained(path: Path) -> Iterator[None]:
    """Translate the errors of decoding damaged metadata.

    Raises:
        ArtifactError: the metadata is not JSON, not UTF-8, or not zlib.
    """
    try:
        yield
    except (ValueError, zlib.error, RuntimeError) as error:
        raise ArtifactError(
            f"{path}: its metadata is damaged: {error}.",
            remedy="Export the model again.",
        ) from error
