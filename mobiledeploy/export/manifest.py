"""The manifest beside each artifact: all that is needed to rebuild it and to believe it.

`<artifact>.json`, versioned by `schema`. It holds no time and no host name: the same command writes
the same bytes.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobiledeploy.errors import ArtifactError, UsageError
from mobiledeploy.files import sha256_of, write_whole
from mobiledeploy.types import (
    Artifact,
    FoldedModel,
    ModelSpec,
    Preprocessing,
    QuantizedModel,
    QuantRecipe,
)

if TYPE_CHECKING:
    from mobiledeploy.types import ParityReport

SCHEMA = 1
_TOOLS = (
    "mobiledeploy",
    "torch",
    "torchao",
    "executorch",
    "onnx",
    "onnx-ir",
    "onnxscript",
    "onnxruntime",
)


def tool_versions() -> dict[str, str]:
    """Return the versions of everything that shapes an artifact's bytes."""
    return {tool: version(tool) for tool in _TOOLS}


def manifest_path(artifact: Path) -> Path:
    """Return where an artifact's manifest lies: beside it, with `.json` appended."""
    return artifact.with_name(artifact.name + ".json")


def write_manifest(
    artifact: Artifact, model: QuantizedModel | FoldedModel, parity: ParityReport | None
) -> Path:
    """Write the manifest of an artifact beside it; return its path."""
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "artifact": {
            "file": artifact.path.name,
            "format": artifact.format,
            "sha256": artifact.sha256,
            "size_bytes": artifact.size_bytes,
        },
        "spec": asdict(model.spec),
        "precision": artifact.precision,
        "weights": asdict(model.provenance),
        "preprocessing": asdict(model.preprocessing),
        "labels": len(model.labels),
        "tool_versions": dict(artifact.tool_versions),
    }
    if isinstance(model, QuantizedModel):
        document |= {
            "calibration": {
                "source": model.calibration_source,
                "count": model.calibration_count,
                "sha256": model.calibration_sha256,
            },
            "recipe": asdict(model.recipe),
            "encodings_sha256": model.encodings_digest,
            "encodings": {name: asdict(e) for name, e in model.encodings.items()},
            "int8_macs_share": model.int8_macs_share,
        }
    if parity is not None:
        document["parity"] = asdict(parity) | {"passed": parity.passed}
    path = manifest_path(artifact.path)
    with write_whole(path) as part:
        part.write_text(json.dumps(document, indent=2) + "\n")
    return path


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What can be rebuilt from a manifest.

    Attributes:
        document: All of it, as parsed.
    """

    spec: ModelSpec
    preprocessing: Preprocessing
    recipe: QuantRecipe | None
    document: dict[str, Any]


def read_manifest(artifact: Path) -> Manifest:
    """Read the manifest beside an artifact and check that the two belong together.

    Raises:
        ArtifactError: the artifact or its manifest is missing or damaged, the schema is unknown, or
            the artifact's bytes are not those that the manifest describes.
    """
    path = manifest_path(artifact)
    remedy = "Export the artifact again; `mobiledeploy export` writes both."
    if not artifact.is_file():
        raise ArtifactError(f"There is no artifact at {artifact}.", remedy="Check the path.")
    if not path.is_file():
        raise ArtifactError(f"The manifest {path} is missing.", remedy=remedy)
    try:
        document = json.loads(path.read_text())
        if document["schema"] != SCHEMA:
            raise ArtifactError(
                f"The manifest {path} has schema {document['schema']}; expected {SCHEMA}.",
                remedy="Use the mobiledeploy that wrote it, or export the artifact again.",
            )
        recipe = document.get("recipe")
        manifest = Manifest(
            spec=ModelSpec.from_document(document["spec"]),
            preprocessing=_preprocessing(document["preprocessing"]),
            recipe=QuantRecipe(**recipe) if recipe else None,
            document=document,
        )
        expected = str(document["artifact"]["sha256"])
    except (ValueError, KeyError, TypeError, UsageError) as error:
        raise ArtifactError(f"The manifest {path} is damaged: {error}.", remedy=remedy) from error
    found = sha256_of(artifact)
    if found != expected:
        raise ArtifactError(
            f"{artifact} is not the file that its manifest describes: its sha256 is"
            f" {found[:12]}..., expected {expected[:12]}...",
            remedy=remedy,
        )
    return manifest


def _preprocessing(fields: dict[str, Any]) -> Preprocessing:
    return Preprocessing(
        mean=tuple(fields["mean"]),
        std=tuple(fields["std"]),
        crop_pct=fields["crop_pct"],
        interpolation=fields["interpolation"],
    )
