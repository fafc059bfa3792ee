"""The network again, from the manifest of an artifact.

In: a `Manifest`, and where checkpoint and calibration images are now if they have moved. Out: the
network in all its stages. Invariant: weights, images and int8 network are those of the manifest, by
sha256, or nothing is returned.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobiledeploy.data.calibration import embedded_calibration, load_calibration
from mobiledeploy.errors import ArtifactError, DataError, OtherInputsError, UsageError, WeightsError
from mobiledeploy.network import EMBEDDED, QuantizedModel
from mobiledeploy.pipeline.build import build, take_through_stages
from mobiledeploy.utils.files import sha256_of

if TYPE_CHECKING:
    from pathlib import Path

    from mobiledeploy.artifact.manifest import Manifest
    from mobiledeploy.network import CalibrationSet, FloatModel, Stages


def rebuild(
    manifest: Manifest, *, weights: Path | None = None, calib_data: Path | None = None
) -> Stages:
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
    if model.info.provenance.sha256 != described["sha256"]:
        raise OtherInputsError(
            f"The weights of {model.info.provenance.origin} are not those of the artifact.",
            remedy="Say with --weights where the checkpoint is, or export the artifact again.",
        )
    info = model.info
    if described["source"] != "file":  # published weights from a file: by their sha256 the same
        provenance = replace(
            info.provenance, source=described["source"], origin=described["origin"]
        )
        info = replace(info, name=spec.name, source=asdict(spec), provenance=provenance)
    return replace(model, info=info.with_labels(manifest.labels))


def _no_network(manifest: Manifest, error: UsageError) -> ArtifactError:
    """Return the error of a manifest that was edited: nobody typed what is wrong."""
    return ArtifactError(
        f"The manifest {manifest.path} describes no network: {error.message}",
        remedy="Restore the manifest, or export the artifact again.",
    )


def _require_same_network(manifest: Manifest, networks: Stages) -> None:
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


def find_checkpoint(manifest: Manifest, given: Path | None = None) -> Path | None:
    """Return the checkpoint file; None where the weights are named and no file was given.

    Args:
        manifest: Says where it was, and its sha256.
        given: Where it is now; nowhere else is looked.

    Raises:
        UsageError: a file is given for random weights, which have none.
        WeightsError: there is no file.
        OtherInputsError: there are only files of other contents.
    """
    described = manifest.document["weights"]
    if described["source"] == "random" and given is not None:
        raise UsageError(
            f"The weights are random ({described['origin']}): they come from no file.",
            remedy="Leave --weights out.",
        )
    if described["source"] != "file" and given is None:
        return None
    places = list(manifest.places_of(manifest.spec.weights, described, given))
    found = [path for path in places if path.is_file()]
    for path in found:
        if sha256_of(path) == described["sha256"]:
            return path
    where = " and ".join(str(path) for path in found or places)
    if not found:
        raise WeightsError(
            f"The checkpoint is no longer at {where}.", remedy="Say with --weights where it is."
        )
    raise OtherInputsError(
        f"The weights at {where} are not those of the artifact: the sha256 is"
        f" {sha256_of(found[0])[:12]}..., expected {described['sha256'][:12]}...",
        remedy="Say with --weights where the checkpoint is, or export the artifact again.",
    )


def find_calibration(manifest: Manifest, given: Path | None = None) -> CalibrationSet | None:
    """Load the images that the network was calibrated with; None where it is a float one.

    Args:
        manifest: Says where they were, how many, and the sha256 of their ordered list.
        given: Where they are now; nowhere else is looked.

    Raises:
        UsageError: images are given for a float network.
        DataError: there are none, too few, or one cannot be read.
        OtherInputsError: there are only other ones.
    """
    if manifest.recipe is None:
        if given is not None:
            raise UsageError(
                "The artifact is a float one: there was no calibration.",
                remedy="Leave --calib-data out.",
            )
        return None
    described = manifest.document["calibration"]
    places: list[Path | None] = [None]
    if described["source"] != EMBEDDED or given is not None:
        places = [*manifest.places_of(described["source"], described, given)]
    found = [path for path in places if path is None or path.exists()]
    if not found:
        raise DataError(
            f"The calibration images are no longer at {' and '.join(map(str, places))}, and the"
            " int8 network cannot be rebuilt without them.",
            remedy="Say with --calib-data where they are.",
        )
    others: list[str] = []
    unusable: list[str] = []
    for path in found:
        try:
            images = _load(manifest, path, described["count"])
        except DataError as error:
            unusable.append(error.message)
            continue
        if images.sha256 == described["sha256"]:
            return images
        others.append(_other(path, images.sha256))
    remedy = "Say with --calib-data where the images are, or export the artifact again."
    if not others:
        raise DataError(" ".join(unusable), remedy=remedy)
    raise OtherInputsError(
        "The calibration images are not those that the artifact was made with:"
        f" {' and '.join(others)}, expected {str(described['sha256'])[:12]}... for"
        f" {described['count']} images.",
        remedy=remedy,
    )


def _other(path: Path | None, sha256: str) -> str:
    where = "those that this package carries" if path is None else f"those of {path}"
    return f"{where} have the sha256 {sha256[:12]}..."


def _load(manifest: Manifest, path: Path | None, count: int) -> CalibrationSet:
    if path is None:
        return embedded_calibration(manifest.info, count)
    return load_calibration(path, manifest.info, samples=count)
