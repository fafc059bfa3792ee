"""What a person means by "this artifact": the file, or its manifest.

In: a path. Out: a `OpenArtifact`. Invariant: where the artifact is there, it is the one that the
manifest describes, by sha256.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mobiledeploy.artifact.manifest import parse_manifest, read_manifest
from mobiledeploy.errors import ArtifactError

if TYPE_CHECKING:
    from pathlib import Path

    from mobiledeploy.artifact.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenArtifact:
    """An artifact by its manifest.

    Attributes:
        given: As it was typed.
        artifact: The file; None where only the manifest is there.
    """

    given: Path
    manifest: Manifest
    artifact: Path | None


def open_artifact(given: Path) -> OpenArtifact:
    """Open an artifact (`.onnx`, `.pte`) with its manifest, or a manifest (`.json`).

    Raises:
        ArtifactError: a file is missing or damaged, or the two do not belong together.
    """
    if given.suffix != ".json":
        return OpenArtifact(given=given, manifest=read_manifest(given), artifact=given)
    if not given.is_file():
        raise ArtifactError(f"There is no manifest at {given}.", remedy="Check the path.")
    manifest = parse_manifest(given)
    if not manifest.artifact.is_file():
        return OpenArtifact(given=given, manifest=manifest, artifact=None)
    if manifest.artifact.with_name(f"{manifest.artifact.name}.json") == given:
        read_manifest(manifest.artifact)
        return OpenArtifact(given=given, manifest=manifest, artifact=manifest.artifact)
    return OpenArtifact(given=given, manifest=manifest, artifact=None)
