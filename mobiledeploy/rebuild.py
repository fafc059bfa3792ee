"""The network again, from the manifest of an artifact.

In: a `Manifest`, and where checkpoint and calibration images are now if they have moved. Out: the
network in all its stages. Invariant: weights, images and int8 network are those of the manifest, by
sha256, or nothing is returned.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mobiledeploy.errors import ArtifactError, OtherInputsError, UsageError
from mobiledeploy.pipeline import build, take_through_stages
from mobiledeploy.sources import find_calibration, find_checkpoint
from mobiledeploy.types import QuantizedModel

if TYPE_CHECKING:
    from pathlib import Path

    from mobiledeploy.climb import Networks
    from mobiledeploy.export.manifest import Manifest
    from mobiledeploy.types import FloatModel


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
    model = rebuild_float(manifest, find_checkpoint(manifest, weights))
    calibration = find_calibration(manifest, calib_data)
    try:
        networks = take_through_stages(model, calibration, manifest.recipe)
    except UsageError as error:  # a layer to keep in float that it has not
        raise _no_network(manifest, error) from error
    if calibration is not None:
        _require_same_network(manifest, networks)
    return networks


def rebuild_float(manifest: Manifest, checkpoint: Path | None) -> FloatModel:
    """Build the float network of a manifest.

    Args:
        manifest: Of an artifact.
        checkpoint: From `find_checkpoint`.

    Raises:
        ArtifactError: the manifest describes no network that can be built.
        OtherInputsError: its weights are not those of the manifest.
        WeightsError: they cannot be had or read.
    """
    spec, described = manifest.spec, manifest.document["weights"]
    fields = {
        name: getattr(spec, name)
        for name in spec.__dataclass_fields__
        if name not in {"family", "weights"}
    }
    try:
        model = build(
            spec.family,
            weights=str(checkpoint or spec.weights),
            preprocessing=manifest.preprocessing,
            **fields,
        )
    except UsageError as error:
        raise _no_network(manifest, error) from error
    if model.provenance.sha256 != described["sha256"]:
        raise OtherInputsError(
            f"The weights of {model.provenance.origin} are not those of the artifact.",
            remedy="Say with --weights where the checkpoint is, or export the artifact again.",
        )
    if described["source"] != "file":  # published weights from a file: by their sha256 the same
        provenance = replace(
            model.provenance, source=described["source"], origin=described["origin"]
        )
        model = replace(model, spec=spec, provenance=provenance)
    return replace(model, labels=manifest.labels)


def _no_network(manifest: Manifest, error: UsageError) -> ArtifactError:
    """Return the error of a manifest that was edited: nobody typed what is wrong."""
    return ArtifactError(
        f"The manifest {manifest.path} describes no network: {error.message}",
        remedy="Restore the manifest, or export the artifact again.",
    )


def _require_same_network(manifest: Manifest, networks: Networks) -> None:
    deployed = networks.deployed
    assert isinstance(deployed, QuantizedModel)
    moved = _moved(manifest.document["encodings"], deployed.encodings)
    if deployed.encodings_digest == manifest.document["encodings_sha256"] and not moved:
        return
    differ = (
        f"{len(moved)} of {len(deployed.encodings)} activation encodings differ, first that of"
        f" {moved[0]}"
        if moved
        else "all activation encodings agree, so it is weights that were rounded differently"
    )
    raise ArtifactError(
        f"The network could not be rebuilt from the manifest {manifest.path}: {differ}.",
        remedy=f"Rebuild it with the tools that made it ({_versions(manifest)}), or export the"
        " artifact again. If the manifest was edited, restore it. `mobiledeploy reproduce` shows"
        " what differs.",
    )


def _moved(stored: dict[str, Any], rebuilt: Any) -> list[str]:
    """Return the tensors whose encodings are not the stored ones."""
    known = {name: (e["scale"], e["zero_point"]) for name, e in stored.items()}
    found = {name: (e.scale, e.zero_point) for name, e in rebuilt.items()}
    return [name for name in found | known if found.get(name) != known.get(name)]


def _versions(manifest: Manifest) -> str:
    tools = manifest.document.get("tool_versions", {})
    return ", ".join(f"{name} {tools[name]}" for name in ("torch", "torchao") if name in tools)
