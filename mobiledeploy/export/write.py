"""Write a network as an artifact: ONNX, ExecuTorch `.pte`, or LiteRT `.tflite`.

In: a `QuantizedModel` (int8) or a `FoldedModel` (fp32). Out: a file and its `Artifact`.
`artifact.manifest.write_manifest` writes the manifest once parity is known.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from mobiledeploy.artifact.artifact import Artifact, Format, load
from mobiledeploy.artifact.manifest import tool_versions
from mobiledeploy.errors import UsageError
from mobiledeploy.export.program import precision_of
from mobiledeploy.stages import FoldedModel, QuantizedModel
from mobiledeploy.utils.arguments import FOLD_FIRST, StrPath, as_path, require_instance
from mobiledeploy.utils.files import sha256_of, write_whole
from mobiledeploy.utils.full_disk import explaining_no_room
from mobiledeploy.utils.progress import step

if TYPE_CHECKING:
    from pathlib import Path


def artifact_name(model: QuantizedModel | FoldedModel, file_format: str) -> str:
    """Return the file name of an artifact, for example ``mobilenet_v2_1.0_224-int8.pte``.

    If some layers stay in float, the name gives their number and a fingerprint of their names.
    """
    kept = model.recipe.float_layers if isinstance(model, QuantizedModel) else ()
    fingerprint = hashlib.sha256(" ".join(kept).encode()).hexdigest()[:6]
    mixed = f"-{len(kept)}float-{fingerprint}" if kept else ""
    return f"{model.info.name}-{precision_of(model)}{mixed}.{file_format}"


def export(model: QuantizedModel | FoldedModel, file_format: Format, path: Path) -> Artifact:
    """Write the network to `path` and count how much of it computes in int8.

    Raises:
        ExportError: the exporter refused the network.
        RuntimeFailedError: the file could not be written.
    """
    with step(f"Exporting to {file_format.label}"), explaining_no_room():
        data = load(file_format.exporter)(model)
        with write_whole(path) as part:
            part.write_bytes(data)
        with step("Measuring the share of int8"):
            coverage = load(file_format.inspector)(path).coverage
    return Artifact(
        format=file_format,
        path=path,
        sha256=sha256_of(path),
        size_bytes=len(data),
        precision=precision_of(model),
        encodings_digest=model.encodings_digest if isinstance(model, QuantizedModel) else "",
        tool_versions=tool_versions(),
        coverage=coverage,
    )


def export_onnx(model: QuantizedModel | FoldedModel, path: StrPath) -> Artifact:
    """Write the network as ONNX: one file, any batch size, opset 14 where its operators allow it.

    Raises:
        UsageError: the path does not end in `.onnx`.
        ExportError: the exporter refused the network.
        RuntimeFailedError: the file could not be written.
    """
    return export(model, Format.ONNX, _checked(model, Format.ONNX, path))


def export_tflite(model: QuantizedModel | FoldedModel, path: StrPath) -> Artifact:
    """Write the network for LiteRT, with a batch of one and images as (H, W, C).

    Raises:
        UsageError: the path does not end in `.tflite`.
        ExportError: LiteRT has no form of an operator.
        RuntimeFailedError: the file could not be written.
    """
    return export(model, Format.TFLITE, _checked(model, Format.TFLITE, path))


def export_executorch(model: QuantizedModel | FoldedModel, path: StrPath) -> Artifact:
    """Write the network as an ExecuTorch program for XNNPACK, with a batch of one.

    Raises:
        UsageError: the path does not end in `.pte`.
        ExportError: the exporter refused the network, or left an operator outside the delegate.
        RuntimeFailedError: the file could not be written.
    """
    return export(model, Format.PTE, _checked(model, Format.PTE, path))


def _checked(model: QuantizedModel | FoldedModel, file_format: Format, path: StrPath) -> Path:
    """Return the path; refuse a model of another stage, and a suffix that is not the format's."""
    require_instance(model, (FoldedModel, QuantizedModel), "model", FOLD_FIRST)
    file = as_path(path, "path")
    if file.suffix != file_format.suffix:
        raise UsageError(
            f"{file} ends in {file.suffix or 'no suffix'!r}; expected {file_format.suffix}.",
            remedy="An artifact's suffix is its format.",
        )
    return file
