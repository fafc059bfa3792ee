"""The manifest beside each artifact: all that is needed to rebuild it and to believe it.

`<artifact>.json`, versioned by `schema`. It holds no time and no host name: the same command writes
the same bytes.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from mobiledeploy.artifact.artifact import Artifact
from mobiledeploy.artifact.manifest_schema import check_fields
from mobiledeploy.errors import ArtifactError, UsageError
from mobiledeploy.models.spec import ModelSpec
from mobiledeploy.network import (
    EMBEDDED,
    FoldedModel,
    NetworkInfo,
    Preprocessing,
    QuantizedModel,
    QuantRecipe,
    WeightsProvenance,
)
from mobiledeploy.utils.files import require_artifact, sha256_of, write_whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SCHEMA = 2
_READABLE = (1, SCHEMA)  # 1 had other names for equalization and GPTQ
_REMEDY = "Export the artifact again; `mobiledeploy export` writes both."
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
    artifact: Artifact,
    model: QuantizedModel | FoldedModel,
    parity: Mapping[str, Any] | None,
    home: Path | None = None,
) -> Path:
    """Write the manifest of an artifact beside it; return its path.

    Args:
        artifact: Written.
        model: What it encodes.
        parity: What a comparison found, as JSON; None where there was none.
        home: The folder that both will be moved to; by default they stay where they are.
    """
    path = manifest_path(artifact.path)
    home = home or path.parent
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "artifact": {
            "file": artifact.path.name,
            "format": artifact.format,
            "sha256": artifact.sha256,
            "size_bytes": artifact.size_bytes,
        },
        "spec": dict(model.info.source),
        "precision": artifact.precision,
        "weights": asdict(model.info.provenance) | _from_manifest(home, _checkpoint(model)),
        "preprocessing": asdict(model.info.preprocessing),
        "labels": list(model.info.labels),
        "tool_versions": dict(artifact.tool_versions),
    }
    if isinstance(model, QuantizedModel):
        document |= {
            "calibration": {
                "source": model.calibration_source,
                **_from_manifest(home, _calibration_images(model)),
                "count": model.calibration_count,
                "sha256": model.calibration_sha256,
            },
            "recipe": asdict(model.recipe),
            "encodings_sha256": model.encodings_digest,
            "encodings": {
                name: asdict(encoding) | {"layer": model.layers.get(name, "")}
                for name, encoding in model.encodings.items()
            },
        }
    if artifact.coverage is not None:
        document["int8_coverage"] = artifact.coverage.document()
    if parity is not None:
        document["parity"] = dict(parity)
    with write_whole(path) as part:
        part.write_text(json.dumps(document, indent=2) + "\n")
    return path


def _checkpoint(model: QuantizedModel | FoldedModel) -> str:
    """Return the path of the weights; empty where they are named."""
    return str(model.info.source["weights"]) if model.info.provenance.source == "file" else ""


def _calibration_images(model: QuantizedModel) -> str:
    """Return the path of the calibration images; empty where the package carries them."""
    source = model.calibration_source
    return "" if source == EMBEDDED else source


def _from_manifest(folder: Path, typed: str) -> dict[str, str]:
    """Return where a path leads from the manifest's folder: a project can be moved as a whole."""
    if not typed:
        return {}
    relative = os.path.relpath(typed, folder)
    return {"from_manifest": Path(relative).as_posix()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What can be rebuilt from a manifest.

    Attributes:
        path: Where it was read.
        document: All of it, as parsed.
    """

    path: Path
    spec: ModelSpec
    preprocessing: Preprocessing
    recipe: QuantRecipe | None
    document: dict[str, Any]

    @property
    def folder(self) -> Path:
        """Return the folder that the manifest lies in."""
        return self.path.parent

    @property
    def artifact(self) -> Path:
        """Return where the artifact lies, or should: beside its manifest."""
        return self.folder / Path(self.document["artifact"]["file"]).name

    def places_of(
        self, typed: str, described: Mapping[str, str], given: Path | None = None
    ) -> Iterator[Path]:
        """Yield where a file or folder that the manifest names may be now.

        As it was typed, from the current folder; then as seen from the manifest, so that a project
        can be moved, or checked out elsewhere, as a whole.

        Args:
            typed: Its path when the artifact was exported.
            described: What the manifest says about it.
            given: Where the user says that it is; nowhere else is looked then.
        """
        if given is not None:
            yield given
            return
        yield Path(typed)
        beside = self.folder / described.get("from_manifest", typed)
        if beside.resolve() != Path(typed).resolve():
            yield beside

    @property
    def info(self) -> NetworkInfo:
        """Return what the stages after `build` know about the network."""
        described = self.document["weights"]
        provenance = WeightsProvenance(
            source=described["source"],
            origin=described["origin"],
            sha256=described["sha256"],
            dialect=described["dialect"],
            notes=tuple(described.get("notes", ())),
        )
        return self.spec.network_info(provenance, self.preprocessing, self.labels)

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the names of the classes; empty where they are not known."""
        return tuple(self.document["labels"])


def read_manifest(artifact: Path) -> Manifest:
    """Read the manifest beside an artifact and check that the two belong together.

    Raises:
        ArtifactError: the artifact or its manifest is missing or damaged, the schema is unknown, or
            the artifact's bytes are not those that the manifest describes.
    """
    require_artifact(artifact)
    manifest = parse_manifest(manifest_path(artifact))
    expected, found = manifest.document["artifact"]["sha256"], sha256_of(artifact)
    if found != expected:
        raise ArtifactError(
            f"{artifact} is not the file that its manifest describes: its sha256 is"
            f" {found[:12]}..., expected {expected[:12]}... One of the two is of another export.",
            remedy=_REMEDY,
        )
    return manifest


def parse_manifest(path: Path) -> Manifest:
    """Read a manifest, whether or not its artifact is there.

    Raises:
        ArtifactError: it is missing or damaged, or its schema is unknown.
    """
    if not path.is_file():
        raise ArtifactError(f"The manifest {path} is missing.", remedy=_REMEDY)
    try:
        document = json.loads(path.read_text())
        schema = _schema(document)
        if schema not in _READABLE:
            raise ArtifactError(
                f"The manifest {path} has schema {schema}; expected {SCHEMA}.",
                remedy="Use the mobiledeploy that wrote it, or export the artifact again.",
            )
        check_fields(document)
        recipe = document.get("recipe")
        manifest = Manifest(
            path=path,
            spec=ModelSpec.from_document(document["spec"]),
            preprocessing=_preprocessing(document["preprocessing"]),
            recipe=_recipe(recipe) if recipe else None,
            document=document,
        )
        _require_parts(manifest)
    except (ValueError, KeyError, TypeError, UsageError, RecursionError) as error:
        found = f"it has no {error}" if isinstance(error, KeyError) else str(error).rstrip(".")
        raise ArtifactError(f"The manifest {path} is damaged: {found}.", remedy=_REMEDY) from error
    return manifest


def _schema(document: object) -> object:
    """Return what a manifest says that it is."""
    if not isinstance(document, dict):
        raise TypeError("it is no JSON object")
    return document["schema"]


def _require_parts(manifest: Manifest) -> None:
    """Raise KeyError, TypeError or ValueError unless everything is there that others will read."""
    document = manifest.document
    if document["precision"] != ("int8" if manifest.recipe else "fp32"):
        raise ValueError(f"precision is {document['precision']!r}")
    _ = (document["artifact"]["sha256"], document["artifact"]["format"])
    _ = document["artifact"]["size_bytes"]
    if manifest.artifact.suffix != f".{document['artifact']['format']}":
        raise ValueError(f"artifact.format is {document['artifact']['format']!r}")
    if len(manifest.labels) not in (0, manifest.spec.num_classes):
        raise ValueError(f"{len(manifest.labels)} labels for {manifest.spec.num_classes} classes")
    for name in ("mean", "std"):
        if len(document["preprocessing"][name]) != manifest.spec.in_channels:
            raise ValueError(f"preprocessing.{name} has not one number for each channel")
    _ = [document["weights"][name] for name in ("source", "origin", "sha256", "dialect")]
    _ = dict(document["tool_versions"])
    _ = (manifest.artifact, manifest.labels)
    if manifest.recipe is not None:
        calibration = document["calibration"]
        _ = (calibration["source"], calibration["count"], calibration["sha256"])
        _ = document["encodings_sha256"]
        _ = [(e["scale"], e["zero_point"]) for e in dict(document["encodings"]).values()]


_FORMER_WORDS = {"even": "cross-layer", "given": "none", "cancelling": "gptq"}


def _in_todays_words(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe's fields as they are called now; schema 1 had other names for some."""
    former = fields.get("factors", "even")  # the oldest had no such field: channels were even
    fields = {"equalization": former} | fields
    fields.pop("factors", None)
    for name in ("equalization", "rounding"):
        if name in fields:
            fields[name] = _FORMER_WORDS.get(fields[name], fields[name])
    return fields


def _recipe(fields: dict[str, Any]) -> QuantRecipe:
    recipe = QuantRecipe(**_in_todays_words(fields))
    for name, kind in get_type_hints(QuantRecipe).items():
        if get_origin(kind) is Literal and getattr(recipe, name) not in get_args(kind):
            raise ValueError(f"recipe.{name} is {getattr(recipe, name)!r}")
    return replace(recipe, float_layers=tuple(recipe.float_layers))


def _preprocessing(fields: dict[str, Any]) -> Preprocessing:
    return Preprocessing(
        mean=tuple(fields["mean"]),
        std=tuple(fields["std"]),
        crop_pct=fields["crop_pct"],
        interpolation=fields["interpolation"],
    )
