"""The manifest beside each artifact: what is needed to build the artifact again and to check it.

An artifact `NAME.pte` has the manifest `NAME.pte.json`. It holds no time and no host name, so the
same command writes the same bytes.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError

from mobiledeploy.artifact.artifact import Artifact
from mobiledeploy.artifact.manifest_schema import (
    READABLE_SCHEMAS,
    SCHEMA,
    ArtifactRecord,
    CalibrationRecord,
    CoverageRecord,
    EncodingRecord,
    ManifestDocument,
    MarginRecord,
    ParityRecord,
    TrainingRecord,
    WeightsRecord,
    upgrade,
)
from mobiledeploy.errors import ArtifactError
from mobiledeploy.models.code_source import is_file, source_of
from mobiledeploy.models.code_spec import CodeSpec
from mobiledeploy.models.spec import ModelSpec
from mobiledeploy.network import CUSTOM, NetworkInfo
from mobiledeploy.stages import EMBEDDED, FoldedModel, QuantizedModel
from mobiledeploy.utils.files import require_artifact, require_regular, sha256_of, write_whole
from mobiledeploy.utils.json_model import explain_invalid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_REMEDY = "Export the artifact again. `mobiledeploy export` writes both."
_TOOLS = (
    "mobiledeploy",
    "torch",
    "torchao",
    "executorch",
    "onnx",
    "onnx-ir",
    "onnxscript",
    "onnxruntime",
    "ai-edge-litert",
)


class Manifest(ManifestDocument):
    """A manifest that was read from a file."""

    path: Path = Field(exclude=True)

    @property
    def folder(self) -> Path:
        """Return the folder of the manifest."""
        return self.path.parent

    @property
    def artifact_path(self) -> Path:
        """Return the path of the artifact, which is in the manifest's folder if it exists."""
        return self.folder / Path(self.artifact.file).name

    @property
    def info(self) -> NetworkInfo:
        """Return what the stages after `build` know about the network."""
        return self.spec.network_info(self.provenance, self.preprocessing, self.labels)

    def to_json(self) -> dict[str, Any]:
        """Return the manifest as the JSON document that it was read from."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)

    def checkpoint_paths(self, given: Path | None = None) -> Sequence[Path]:
        """Return where the checkpoint may be now; `given` is the user's path and then the only one.

        The path of the export comes first, then the same path relative to the manifest, so that a
        project can be moved or checked out elsewhere as a whole.
        """
        if given is not None:
            return (given,)
        return self._possible_paths(self.spec.weights, self.weights.from_manifest)

    def calibration_paths(self, given: Path | None = None) -> Sequence[Path]:
        """Return where the calibration images may be now, as `checkpoint_paths`.

        Without `given` there are none for a float network and for bundled images.
        """
        if given is not None:
            return (given,)
        calibration = self.calibration
        if calibration is None or calibration.source == EMBEDDED:
            return ()
        return self._possible_paths(calibration.source, calibration.from_manifest)

    def code_paths(self) -> Sequence[Path]:
        """Return where the source file may be now, as `checkpoint_paths`; empty without a file."""
        if not isinstance(self.spec, CodeSpec) or self.code_from_manifest is None:
            return ()
        return self._possible_paths(source_of(self.spec.code)[0], self.code_from_manifest)

    def _possible_paths(self, exported: str, from_manifest: str | None) -> Sequence[Path]:
        paths = (Path(exported), self.folder / (from_manifest or exported))
        return paths[:1] if paths[0].resolve() == paths[1].resolve() else paths


def tool_versions() -> dict[str, str]:
    """Return the versions of all packages that shape an artifact's bytes."""
    return {tool: version(tool) for tool in _TOOLS}


def manifest_path(artifact: Path) -> Path:
    """Return the path of an artifact's manifest: the artifact's path with `.json` appended."""
    return artifact.with_name(artifact.name + ".json")


def write_manifest(
    artifact: Artifact,
    model: QuantizedModel | FoldedModel,
    parity: Mapping[str, Any] | None,
    training: Mapping[str, Any] | None = None,
    home: Path | None = None,
) -> Path:
    """Write the manifest of an artifact beside it and return its path.

    Args:
        artifact: The artifact, already written.
        model: The network that the artifact encodes.
        parity: The summary of a parity report, as JSON; None if parity was not checked.
        training: How the network matches its training statistics, as JSON; None if unknown.
        home: The folder that artifact and manifest will be moved to; by default they stay.

    Raises:
        RuntimeFailedError: the file could not be written.
    """
    path = manifest_path(artifact.path)
    document = _document(artifact, model, parity, training, home or path.parent)
    content = document.model_dump(mode="json", by_alias=True, exclude_unset=True)
    with write_whole(path) as part:
        part.write_text(json.dumps(content, indent=2) + "\n")
    return path


def _document(
    artifact: Artifact,
    model: QuantizedModel | FoldedModel,
    parity: Mapping[str, Any] | None,
    training: Mapping[str, Any] | None,
    folder: Path,
) -> ManifestDocument:
    """Return the manifest's content; fields that do not apply stay unset."""
    info, coverage = model.info, artifact.coverage
    kind = CodeSpec if info.architecture == CUSTOM else ModelSpec
    spec = kind.from_document(info.source)
    checkpoint = spec.weights if info.provenance.source == "file" else ""
    fields: dict[str, Any] = {
        "schema_version": SCHEMA,
        "artifact": ArtifactRecord(
            file=artifact.path.name,
            format=artifact.format,
            sha256=artifact.sha256,
            size_bytes=artifact.size_bytes,
        ),
        "spec": spec,
        "precision": artifact.precision,
        "weights": WeightsRecord.model_validate(
            asdict(info.provenance) | _relative_path(checkpoint, folder)
        ),
        "preprocessing": info.preprocessing,
        "labels": info.labels,
        "tool_versions": dict(artifact.tool_versions),
    }
    if isinstance(spec, CodeSpec) and spec.code and is_file(source_of(spec.code)[0]):
        paths = _relative_path(source_of(spec.code)[0], folder)
        fields["code_from_manifest"] = paths["from_manifest"]
    if isinstance(model, QuantizedModel):
        source = model.calibration_source
        images = "" if source == EMBEDDED else source
        fields |= {
            "calibration": CalibrationRecord(
                source=source,
                count=model.calibration_count,
                sha256=model.calibration_sha256,
                **_relative_path(images, folder),
            ),
            "recipe": model.recipe,
            "encodings_sha256": model.encodings_digest,
            "margin": MarginRecord(**asdict(model.margin)),
            "encodings": {
                name: EncodingRecord(**asdict(encoding), layer=model.layers.get(name, ""))
                for name, encoding in model.encodings.items()
            },
        }
    if training is not None:
        fields["training_match"] = TrainingRecord.model_validate(training)
    if coverage is not None:
        fields["int8_coverage"] = CoverageRecord.model_validate_json(
            json.dumps(coverage.document())
        )
    if parity is not None:
        fields["parity"] = ParityRecord.model_validate_json(json.dumps(parity))
    return ManifestDocument(**fields)


def _relative_path(path: str, folder: Path) -> dict[str, str]:
    """Return the field with a path relative to the manifest's folder; nothing for no path."""
    return {"from_manifest": Path(os.path.relpath(path, folder)).as_posix()} if path else {}


def read_manifest(artifact: Path) -> Manifest:
    """Read the manifest beside an artifact and check that it describes this artifact.

    Raises:
        ArtifactError: the artifact or its manifest is missing or damaged, the schema is unknown, or
            the artifact's sha256 is not the manifest's.
    """
    require_artifact(artifact)
    manifest = parse_manifest(manifest_path(artifact))
    _require_described(artifact, manifest)
    return manifest


def require_undamaged(artifact: Path) -> None:
    """Raise if a manifest lies beside an artifact and describes another file.

    An artifact may be alone, and a manifest that cannot be read says nothing about it.

    Raises:
        ArtifactError: the artifact's sha256 is not the manifest's.
    """
    path = manifest_path(artifact)
    if not path.is_file():
        return
    try:
        manifest = parse_manifest(path)
    except ArtifactError:
        return
    _require_described(artifact, manifest)


def _require_described(artifact: Path, manifest: Manifest) -> None:
    expected, found = manifest.artifact.sha256, sha256_of(artifact)
    if found != expected:
        raise ArtifactError(
            f"{artifact} is not the file that its manifest describes: its sha256 is"
            f" {found[:12]}..., expected {expected[:12]}... It is damaged, or they come from"
            " different exports.",
            remedy=_REMEDY,
        )


def parse_manifest(path: Path) -> Manifest:
    """Read a manifest, whether or not its artifact is there.

    Raises:
        ArtifactError: the manifest is missing or damaged, or its schema is unknown.
    """
    require_regular(path, ArtifactError)
    if not path.is_file():
        raise ArtifactError(
            f"The manifest {path} is missing.",
            remedy="Copy it to the artifact's folder, or export again, which writes both.",
        )
    try:
        text = path.read_text()
    except OSError as error:
        raise ArtifactError(f"Could not read the manifest {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise _damaged(path, str(error)) from error
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"it is not JSON ({error})") from error
    if not isinstance(document, dict):
        raise _damaged(path, "it is not a JSON object")
    if "schema" not in document:
        raise _damaged(path, "`schema` is missing")
    if document["schema"] not in READABLE_SCHEMAS:
        raise ArtifactError(
            f"The manifest {path} has schema {document['schema']}; expected {SCHEMA} or older.",
            remedy="Use the mobiledeploy that wrote it, or export the artifact again.",
        )
    try:
        content = ManifestDocument.model_validate_json(json.dumps(upgrade(document)))
    except ValidationError as error:
        raise _damaged(path, explain_invalid(error)) from error
    return Manifest(
        path=path, **{name: getattr(content, name) for name in content.model_fields_set}
    )


def _damaged(path: Path, problem: str) -> ArtifactError:
    return ArtifactError(f"The manifest {path} is damaged: {problem}.", remedy=_REMEDY)
