"""Say what an artifact holds, whoever made it, without running it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobiledeploy.errors import ArtifactError
from mobiledeploy.inspect.onnx import inspect_onnx
from mobiledeploy.inspect.pte import inspect_pte
from mobiledeploy.inspect.summary import ArtifactSummary
from mobiledeploy.utils.files import require_artifact

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ArtifactSummary", "inspect_artifact", "inspect_onnx", "inspect_pte"]


def inspect_artifact(path: Path) -> ArtifactSummary:
    """Return what a `.onnx` or a `.pte` holds.

    Raises:
        ArtifactError: no such file, an unknown suffix, or a file that is damaged.
    """
    require_artifact(path)
    if path.suffix == ".onnx":
        return inspect_onnx(path)
    if path.suffix == ".pte":
        return inspect_pte(path)
    raise ArtifactError(
        f"{path} ends in {path.suffix or 'no suffix'!r}; expected .onnx or .pte.",
        remedy="Name the artifact itself; what it was exported as is its suffix.",
    )
