"""Say what an artifact holds, whoever made it, without running it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobiledeploy.errors import ArtifactError
from mobiledeploy.export.inspect.onnx import inspect_onnx
from mobiledeploy.export.inspect.pte import inspect_pte
from mobiledeploy.export.inspect.summary import ArtifactSummary

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ArtifactSummary", "inspect_artifact", "inspect_onnx", "inspect_pte"]


def inspect_artifact(path: Path) -> ArtifactSummary:
    """Return what a `.onnx` or a `.pte` holds.

    Raises:
        ArtifactError: no such file, an unknown suffix, or a file that is damaged.
    """
    if not path.is_file():
        raise ArtifactError(f"There is no file {path}.", remedy="Check the path.")
    if path.suffix == ".onnx":
        return inspect_onnx(path)
    if path.suffix == ".pte":
        return inspect_pte(path)
    raise ArtifactError(
        f"{path} ends in {path.suffix or 'no suffix'!r}; expected .onnx or .pte.",
        remedy="Rename the file to what it is.",
    )
