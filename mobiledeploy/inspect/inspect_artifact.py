"""Read what an artifact contains, whatever its format.

An `.onnx` is loaded into ONNX Runtime, which optimizes and runs it, in a process of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobiledeploy.artifact.artifact import Format, damage_explained, load
from mobiledeploy.utils.arguments import StrPath, as_path
from mobiledeploy.utils.files import require_artifact
from mobiledeploy.utils.isolated import call_isolated

if TYPE_CHECKING:
    from pathlib import Path

    from mobiledeploy.inspect.summary import ArtifactSummary


def inspect_artifact(path: StrPath) -> ArtifactSummary:
    """Return what an artifact contains: operators, weights, encodings, metadata.

    Raises:
        ArtifactError: the file is missing or damaged, no format has its suffix, or ONNX Runtime
            crashes on it.
        RuntimeFailedError: the installed tools cannot read the format.
    """
    file = as_path(path, "path")
    require_artifact(file)
    return call_isolated(_inspect, file) if Format.of(file) is Format.ONNX else _inspect(file)


def _inspect(path: Path) -> ArtifactSummary:
    with damage_explained(path):
        summary: ArtifactSummary = load(Format.of(path).inspector)(path)
    return summary
