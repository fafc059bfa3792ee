"""Read what an artifact contains, whatever its format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobiledeploy.artifact.artifact import Format, damage_explained, load
from mobiledeploy.utils.files import require_artifact

if TYPE_CHECKING:
    from pathlib import Path

    from mobiledeploy.inspect.summary import ArtifactSummary


def inspect_artifact(path: Path) -> ArtifactSummary:
    """Return what an artifact contains: operators, weights, encodings, metadata.

    Raises:
        ArtifactError: the file is missing or damaged, or no format has its suffix.
        RuntimeFailedError: the installed tools cannot read the format.
    """
    require_artifact(path)
    inspector = load(Format.of(path).inspector)
    with damage_explained(path):
        summary: ArtifactSummary = inspector(path)
    return summary
