"""Artifacts: files that a phone can run, and the formats that they come in."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Self

from mobiledeploy.errors import ArtifactError
from mobiledeploy.utils.quiet import quietly

if TYPE_CHECKING:
    from pathlib import Path

    from mobiledeploy.artifact.coverage import Coverage

Precision = Literal["fp32", "int8"]

_DAMAGE = (
    *(ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError),
    struct.error,
)


class Format(StrEnum):
    """A file format of artifacts; the value is the file's suffix without the dot.

    The rows below are the only list of formats. Each names its code as "module:attribute", which
    is imported when it is first used: every module loads an exporter or a runtime.

    Attributes:
        label: The name of the format in messages.
        exporter: A function `(QuantizedModel | FoldedModel) -> bytes`, the content of the file.
        runner: The class of the `Runner` that runs the file on this machine.
        inspector: A function `(Path) -> ArtifactSummary`.
        verifier: A function `(Path) -> None` that raises ArtifactError for a file that could crash
            its runtime; empty for a runtime that refuses every damaged file by itself.
    """

    label: str
    exporter: str
    runner: str
    inspector: str
    verifier: str

    PTE = (
        "pte",
        "ExecuTorch",
        "mobiledeploy.export.executorch:encode_model",
        "mobiledeploy.runtimes.executorch:ExecuTorchRunner",
        "mobiledeploy.inspect.pte:inspect_pte",
        "mobiledeploy.artifact.pte_file:check_pte",
    )
    ONNX = (
        "onnx",
        "ONNX",
        "mobiledeploy.export.onnx:encode_model",
        "mobiledeploy.runtimes.onnxruntime:OnnxRuntimeRunner",
        "mobiledeploy.inspect.onnx:inspect_onnx",
        "",
    )
    TFLITE = (
        "tflite",
        "LiteRT",
        "mobiledeploy.export.tflite:encode_model",
        "mobiledeploy.runtimes.litert:LiteRTRunner",
        "mobiledeploy.inspect.tflite:inspect_tflite",
        "",
    )

    def __new__(
        cls, value: str, label: str, exporter: str, runner: str, inspector: str, verifier: str
    ) -> Self:
        """Create the member of one row."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.label, member.exporter, member.runner = label, exporter, runner
        member.inspector, member.verifier = inspector, verifier
        return member

    @property
    def suffix(self) -> str:
        """Return the suffix of a file in this format, for example ".pte"."""
        return f".{self.value}"

    @classmethod
    def of(cls, path: Path) -> Format:
        """Return the format that a file's suffix names.

        Raises:
            ArtifactError: no format has this suffix.
        """
        for candidate in cls:
            if path.suffix == candidate.suffix:
                return candidate
        *others, last = (candidate.suffix for candidate in cls)
        expected = f"{', '.join(others)} or {last}"
        found = f"ends in {path.suffix!r}" if path.suffix else "has no suffix"
        raise ArtifactError(
            f"{path} {found}; expected {expected}.",
            remedy="Name the artifact itself. Its suffix is its format.",
        )


def load(reference: str) -> Any:
    """Import what a row of `Format` names as "module:attribute", without its import warnings."""
    module, attribute = reference.split(":")
    with quietly():
        return getattr(import_module(module), attribute)


@contextmanager
def damage_explained(path: Path) -> Iterator[None]:
    """Translate what fails while the content of a damaged artifact is read.

    Raises:
        ArtifactError: the content contradicts itself, such as a name that is no UTF-8.
    """
    try:
        yield
    except _DAMAGE as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ArtifactError(
            f"{path} is damaged: {lines[0].rstrip('.')}.",
            remedy="Export the model again, or copy the file again.",
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A file that a phone can run.

    Attributes:
        format: Its file format.
        path: Where it is.
        sha256: sha256 of the file, in hex.
        size_bytes: Size of the file.
        precision: "int8" or "fp32".
        encodings_digest: Digest of the quantized network; empty for a float network.
        tool_versions: Package name to version, for every package that shaped the bytes.
        coverage: How much of the network computes in int8, counted from the file; None if it
            could not be counted.
    """

    format: Format
    path: Path
    sha256: str
    size_bytes: int
    precision: Precision
    encodings_digest: str
    tool_versions: Mapping[str, str]
    coverage: Coverage | None = None
