"""What comes out: artifacts, and what was measured on a device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from mobiledeploy.artifact.coverage import Coverage

Format = Literal["onnx", "pte"]
Precision = Literal["fp32", "int8"]

FORMATS: tuple[Format, ...] = ("pte", "onnx")


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A file that a phone can run.

    Attributes:
        encodings_digest: Of the quantized network; empty for float.
        tool_versions: Package name to version, of everything that shaped the bytes.
        coverage: What of it is computed in int8, counted from the file.
    """

    format: Format
    path: Path
    sha256: str
    size_bytes: int
    precision: Precision
    encodings_digest: str
    tool_versions: Mapping[str, str]
    coverage: Coverage | None = None
