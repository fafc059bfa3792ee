"""The network again, from the manifest of an artifact.

In: a `Manifest`, and where checkpoint and calibration images are now if they have moved. Out: the
network in all its stages. Invariant: weights, images and int8 network are those of the manifest, by
sha256, or nothing is returned.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobiledeploy.errors import ArtifactError
from mobiledeploy.pipeline import build, load_images, take_through_stages
from mobiledeploy.types import QuantizedModel

if TYPE_CHECKING:
    from mobiledeploy.climb import Networks
    from mobiledeploy.export.manifest import Manifest
    from mobiledeploy.types import CalibrationSet, Encoding, FloatModel

_NAMED_WEIGHTS = ("imagenet", "random")


def rebuild(
    manifest: Manifest, *, weights: Path | None = None, calib_data: Path | None = None
) -> Networks:
    """Build what a manifest describes.

    Args:
        manifest: From `read_manifest`.
        weights: The checkpoint, where it is no longer where it was.
        calib_data: The calibration images, likewise.

    Raises:
        ArtifactError: weights, calibration images or result are not those of the manifest.
        WeightsError: the checkpoint cannot be found or read.
        DataError: the images cannot be found or read.
    """
    model = _build(manifest, weights)
    if manifest.recipe is None:
        return take_through_stages(model, None, None)
    calibration = _calibration(manifest, model, calib_data)
    networks = take_through_stages(model, calibration, manifest.recipe)
    _require_same_network(manifest, networks)
    return networks


def calibration_source(manifest: Manifest, calib_data: Path | None = None) -> Path | None:
    """Return where the calibration images are; None for those that the package carries."""
    described = manifest.document.get("calibration", {})
    source = described.get("source", "embedded")
    if calib_data is not None or source == "embedded":
        return calib_data
    return _found(manifest, source, described.get("from_manifest"))


def _found(manifest: Manifest, typed: str, from_manifest: str | None) -> Path:
    """Return where a file or folder of the manifest is today.

    As it was typed, from the current folder; else from the manifest's own folder, so that a project
    can be moved, or checked out elsewhere, as a whole. What is found is held against its sha256.
    """
    here = Path(typed)
    beside = manifest.folder / (from_manifest or typed)
    return beside if not here.exists() and beside.exists() else here


def _build(manifest: Manifest, weights: Path | None) -> FloatModel:
    fields = {
        name: getattr(manifest.spec, name)
        for name in manifest.spec.__dataclass_fields__
        if name not in {"family", "weights"}
    }
    document = manifest.document
    typed = manifest.spec.weights
    if typed not in _NAMED_WEIGHTS:
        typed = str(weights or _found(manifest, typed, document["weights"].get("from_manifest")))
    model = build(
        manifest.spec.family, weights=typed, preprocessing=manifest.preprocessing, **fields
    )
    if model.provenance.sha256 != document["weights"]["sha256"]:
        raise ArtifactError(
            f"The weights at {model.provenance.origin} are not those of the artifact.",
            remedy="Say with --weights where the checkpoint is, or export the artifact again.",
        )
    return model


def _calibration(manifest: Manifest, model: FloatModel, calib_data: Path | None) -> CalibrationSet:
    described = manifest.document["calibration"]
    source = calibration_source(manifest, calib_data)
    if source is not None and not source.exists():
        raise ArtifactError(
            f"The calibration images are no longer at {source}, and the int8 network cannot be"
            " rebuilt without them.",
            remedy="Say with --calib-data where they are.",
        )
    calibration = load_images(model, source, described["count"])
    if calibration.sha256 != described["sha256"]:
        raise ArtifactError(
            f"The calibration images at {source or 'embedded'} are not those that the artifact was"
            " made with.",
            remedy="Say with --calib-data where those are, or export the artifact again.",
        )
    return calibration


def _require_same_network(manifest: Manifest, networks: Networks) -> None:
    deployed = networks.deployed
    assert isinstance(deployed, QuantizedModel)
    if deployed.encodings_digest == manifest.document["encodings_sha256"]:
        return
    moved = _moved(manifest.document["encodings"], deployed.encodings)
    differ = (
        f"{len(moved)} of {len(deployed.encodings)} activation encodings differ, first that of"
        f" {moved[0]}"
        if moved
        else "all activation encodings agree, so it is weights that were rounded differently"
    )
    raise ArtifactError(
        f"The network could not be rebuilt from the manifest {manifest.path}: {differ}.",
        remedy=f"Rebuild it with the tools that made it ({_versions(manifest)}), or export the"
        " artifact again. If the manifest was edited, restore it.",
    )


def _moved(stored: dict[str, Any], rebuilt: Any) -> list[str]:
    """Return the tensors whose encodings are not the stored ones."""

    def values(encoding: Encoding | None) -> tuple[float, int] | None:
        return None if encoding is None else (encoding.scale, encoding.zero_point)

    return [
        name
        for name, encoding in stored.items()
        if values(rebuilt.get(name)) != (encoding["scale"], encoding["zero_point"])
    ]


def _versions(manifest: Manifest) -> str:
    tools = manifest.document.get("tool_versions", {})
    return ", ".join(f"{name} {tools[name]}" for name in ("torch", "torchao") if name in tools)
