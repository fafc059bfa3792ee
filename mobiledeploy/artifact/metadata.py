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
from typing import TYPE_CHECKING, Any, cast

from mobiledeploy.artifact.onnx_versions import oldest_onnxruntime
from mobiledeploy.errors import ArtifactError
from mobiledeploy.network import INPUT_NAME, OUTPUT_NAME
from mobiledeploy.stages import FoldedModel, QuantizedModel

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from mobiledeploy.network import InputSpec, OutputSpec
    from mobiledeploy.stages import Encoding

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
        encodings: Sequence[Encoding | None] = [None] * len(info.outputs)
        if isinstance(model, QuantizedModel):
            encodings = model.output_encodings
        document["outputs"] = [
            _describe_output(output, encoding)
            for output, encoding in zip(info.outputs, encodings, strict=True)
        ]
    return document | ({"float_layers": list(kept)} if kept else {})


def _describe_output(output: OutputSpec, encoding: Encoding | None) -> dict[str, object]:
    """Return what an app has to know about one of the outputs.

    That is, of codes: value = (code - zero_point) * scale. An `.onnx` has codes that are larger by
    128.
    """
    document: dict[str, object] = {
        "name": output.name,
        "task": output.task,
        "shape": output.shape,
        "activation": output.activation,
    }
    if output.activation == "top5":
        document["tensors"] = output.tensors
    if output.activation == "codes" and encoding is not None:
        document |= {"element": "int8", **asdict(encoding)}
    return document


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
    document = describe(model)
    for output in cast("list[dict[str, object]]", document.get("outputs", [])):
        if "zero_point" in output:  # activations are uint8 there
            shifted = cast("int", output["zero_point"]) + 128
            output |= {"element": "uint8", "zero_point": shifted}
    entries = {
        f"mobiledeploy.{METADATA}": json.dumps(document),
        f"mobiledeploy.{VERSIONS}": json.dumps(versions),
    }
    if model.info.labels:
        entries[f"mobiledeploy.{LABELS}"] = "\n".join(model.info.labels)
    return entries


def for_tflite(model: QuantizedModel | FoldedModel) -> Mapping[str, bytes]:
    """Return the entries of the file's metadata; its float images are (H, W, C)."""
    document = describe(model)
    if not model.info.input.format.is_pixels:
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


def decode(text: str | bytes) -> dict[str, object]:
    """Return the metadata document of an artifact.

    Raises:
        ValueError: The text is not JSON, or not such a document.
    """
    document = json.loads(text)
    if not isinstance(document, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004 - the file is at fault
    outputs = document.get("outputs", [])
    if not isinstance(outputs, list) or not all(map(_is_output, outputs)):
        raise ValueError("`outputs` does not name the outputs")
    return document


def _is_output(found: object) -> bool:
    """Return whether a value describes an output as far as it is read."""
    if not isinstance(found, dict) or not isinstance(found.get("name"), str):
        return False
    is_scaled = isinstance(found.get("scale"), (int, float))
    if "scale" in found and not (is_scaled and isinstance(found.get("zero_point"), int)):
        return False
    if "tensors" not in found:
        return True
    tensors, shape = found["tensors"], found.get("shape")
    has_names = isinstance(tensors, list) and len(tensors) == 2
    return (
        has_names
        and all(isinstance(name, str) for name in tensors)
        and isinstance(shape, list)
        and all(isinstance(size, int) and 0 < size < 1 << 20 for size in shape)
    )


def output_names(metadata: Mapping[str, object]) -> tuple[str, ...]:
    """Return the names of an artifact's output tensors, in order.

    Args:
        metadata: The document in the artifact; empty for a file of another exporter.
    """
    outputs = cast("list[dict[str, Any]]", metadata.get("outputs", []))
    names = [name for each in outputs for name in each.get("tensors", [each["name"]])]
    return tuple(names) or (OUTPUT_NAME,)


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
