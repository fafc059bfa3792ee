"""Open an artifact that is given as the file or as its manifest.

In: a path. Out: an `OpenArtifact`. Invariant: if the file is there, it is the one that the manifest
describes, by sha256.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mobiledeploy.artifact.manifest import manifest_path, parse_manifest, read_manifest
from mobiledeploy.errors import ArtifactError
from mobiledeploy.utils.files import require_regular

if TYPE_CHECKING:
    from pathlib import Path

    from mobiledeploy.artifact.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenArtifact:
    """An artifact with its manifest.

    Attributes:
        given: The path that the user gave.
        manifest: The manifest.
        path: The artifact; None if only the manifest is there.
    """

    given: Path
    manifest: Manifest
    path: Path | None


def open_artifact(given: Path) -> OpenArtifact:
    """Open an artifact with its manifest beside it, or a manifest (`.json`).

    Raises:
        ArtifactError: a file is missing or damaged, or the two do not belong together.
    """
    if given.suffix != ".json":
        return OpenArtifact(given=given, manifest=read_manifest(given), path=given)
    require_regular(given, ArtifactError)
    if not given.is_file():
        raise ArtifactError(f"There is no manifest at {given}.", remedy="Check the path.")
    manifest = parse_manifest(given)
    artifact = manifest.artifact_path
    # A manifest under another name may describe another artifact than the one that is there.
    if not artifact.is_file() or manifest_path(artifact) != given:
        return OpenArtifact(given=given, manifest=manifest, path=None)
    return OpenArtifact(given=given, manifest=read_manifest(artifact), path=artifact)
