"""Read the flatbuffer of a `.tflite` file.

Source: tensorflow/lite/schema/schema.fbs, through the Python bindings that come with LiteRT.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from ai_edge_litert import schema_py_generated as schema

from mobiledeploy.artifact.metadata import LABELS, METADATA, decode, metadata_errors_explained
from mobiledeploy.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_IDENTIFIER = b"TFL3"
_DAMAGE = (IndexError, ValueError, TypeError, AttributeError, OverflowError, struct.error)
_REMEDY = "Export the model again, or copy the file again."


def read_tflite(path: Path) -> Any:
    """Return the schema's object tree of a file, a `schema.ModelT`.

    Raises:
        ArtifactError: the file cannot be read, is empty or truncated, or is not a `.tflite`.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"Could not read {path}: {error.strerror}.") from error
    if data[4:8] != _IDENTIFIER:
        raise ArtifactError(f"{path} is not a .tflite file.", remedy=_REMEDY)
    try:
        model = schema.ModelT.InitFromPackedBuf(bytearray(data))
    except _DAMAGE as error:
        raise _damaged(path) from error
    if not model.subgraphs or not model.buffers or not model.operatorCodes:
        raise _damaged(path)
    return model


def _damaged(path: Path) -> ArtifactError:
    return ArtifactError(f"{path} is damaged: it holds no complete network.", remedy=_REMEDY)


def read_metadata(path: Path, model: Any) -> tuple[Mapping[str, object], tuple[str, ...]]:
    """Return the metadata and the class names that mobiledeploy wrote; empty if there are none.

    Raises:
        ArtifactError: the metadata is damaged.
    """
    stored = metadata_bytes(model)
    with metadata_errors_explained(path):
        document = decode(stored.get(f"mobiledeploy.{METADATA}", b"{}"))
        labels = stored.get(f"mobiledeploy.{LABELS}", b"").decode()
    return document, tuple(labels.split("\n")) if labels else ()


def metadata_bytes(model: Any) -> dict[str, bytes]:
    """Return all metadata of a file by name."""
    entries = model.metadata or ()
    return {
        entry.name.decode(errors="replace"): bytes(model.buffers[entry.buffer].data)
        for entry in entries
        if entry.name is not None
        and entry.buffer < len(model.buffers)
        and model.buffers[entry.buffer].data is not None
    }
