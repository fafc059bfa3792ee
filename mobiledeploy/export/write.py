"""The network as files that phones run: ONNX, and ExecuTorch `.pte`.

In: a `QuantizedModel` (int8) or a `FoldedModel` (fp32). Out: an `Artifact`; its manifest is written
by `manifest.write_manifest` once parity is known.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch

from mobiledeploy.artifact import metadata
from mobiledeploy.artifact.artifact import Artifact
from mobiledeploy.artifact.manifest import tool_versions
from mobiledeploy.graph.aten_graph import trace
from mobiledeploy.inspect.onnx import inspect_onnx
from mobiledeploy.inspect.pte import inspect_pte
from mobiledeploy.network import FoldedModel, QuantizedModel
from mobiledeploy.utils.files import sha256_of, write_whole
from mobiledeploy.utils.progress import step
from mobiledeploy.utils.quiet import quietly

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch.export import ExportedProgram

    from mobiledeploy.artifact.artifact import Format, Precision
    from mobiledeploy.inspect.summary import ArtifactSummary

_INSPECT: Mapping[Format, Callable[[Path], ArtifactSummary]] = {
    "onnx": inspect_onnx,
    "pte": inspect_pte,
}

__all__ = ["artifact_name", "export_executorch", "export_onnx"]


def artifact_name(model: QuantizedModel | FoldedModel, format: Format) -> str:  # noqa: A002
    """Return the file name of an artifact, for example ``mobilenet_v2_1.0_224-int8.pte``.

    Where layers are kept in float it says how many, and which by a fingerprint.
    """
    kept = model.recipe.float_layers if isinstance(model, QuantizedModel) else ()
    which = hashlib.sha256(" ".join(kept).encode()).hexdigest()[:6]
    mixed = f"-{len(kept)}float-{which}" if kept else ""
    return f"{model.info.name}-{_precision(model)}{mixed}.{format}"


def export_onnx(model: QuantizedModel | FoldedModel, path: Path) -> Artifact:
    """Write the network as ONNX (opset 20, one file, batch of any size).

    Raises:
        ExportError: the exporter refused the network.
        RuntimeFailedError: the file could not be written.
    """
    from mobiledeploy.export import onnx

    with step("Exporting to ONNX"):
        data = onnx.encode(_program(model), _precision(model), metadata.for_onnx(model))
        return _write(model, "onnx", path, data)


def export_executorch(model: QuantizedModel | FoldedModel, path: Path) -> Artifact:
    """Write the network as an ExecuTorch program for XNNPACK (batch of one).

    Raises:
        ExportError: the exporter refused the network, or left an operator outside the delegate.
        RuntimeFailedError: the file could not be written.
    """
    with quietly():  # executorch's own imports warn
        from mobiledeploy.export import executorch

    with step("Lowering to ExecuTorch (XNNPACK)"):
        data = executorch.encode(_program(model), metadata.for_executorch(model))
        return _write(model, "pte", path, data)


def _program(model: QuantizedModel | FoldedModel) -> ExportedProgram:
    if isinstance(model, QuantizedModel):
        return model.program
    # traced: hard-sigmoids are clamps there; decomposed, they would leave the XNNPACK delegate
    with quietly():
        return torch.export.export(trace(model), (torch.zeros(model.info.input.shape),))


def _precision(model: QuantizedModel | FoldedModel) -> Precision:
    return "int8" if isinstance(model, QuantizedModel) else "fp32"


def _write(
    model: QuantizedModel | FoldedModel,
    format: Format,  # noqa: A002
    path: Path,
    data: bytes,
) -> Artifact:
    with write_whole(path) as part:
        part.write_bytes(data)
    with step("Measuring the share of int8"):
        coverage = _INSPECT[format](path).coverage
    return Artifact(
        format=format,
        path=path,
        sha256=sha256_of(path),
        size_bytes=len(data),
        precision=_precision(model),
        encodings_digest=model.encodings_digest if isinstance(model, QuantizedModel) else "",
        tool_versions=tool_versions(),
        coverage=coverage,
    )
