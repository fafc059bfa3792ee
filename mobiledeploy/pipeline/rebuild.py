"""Build the network of a manifest again.

In: a `Manifest`, and the new paths of checkpoint and calibration images if they have moved. Out:
the network after each stage. Invariant: weights, images and int8 network are those of the manifest,
by sha256; otherwise nothing is returned.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mobiledeploy.data.calibration import embedded_calibration, load_calibration
from mobiledeploy.errors import ArtifactError, DataError, OtherInputsError, UsageError, WeightsError
from mobiledeploy.models.code_source import is_file, source_file, source_of
from mobiledeploy.models.code_spec import CodeSpec
from mobiledeploy.pipeline.build import build
from mobiledeploy.pipeline.build_code import build_code
from mobiledeploy.pipeline.network_cache import recall
from mobiledeploy.pipeline.stages import run_stages
from mobiledeploy.stages import EMBEDDED, QuantizedModel
from mobiledeploy.utils.files import sha256_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mobiledeploy.artifact.manifest import Manifest
    from mobiledeploy.stages import CalibrationSet, Encoding, FloatModel, Stages

_WEIGHTS_REMEDY = "Pass the checkpoint with --weights, or export the artifact again."
_IMAGES_REMEDY = "Pass the images with --calib-data, or export the artifact again."


def rebuild(
    manifest: Manifest, *, weights: Path | None = None, calib_data: Path | None = None
) -> Stages:
    """Build the network of a manifest.

    An int8 network that this machine has exported is read from the cache.

    Args:
        manifest: The manifest, from `read_manifest`.
        weights: The checkpoint, if it has moved.
        calib_data: The calibration images, if they have moved.

    Raises:
        ArtifactError: weights, calibration images or the result are not those of the manifest.
        WeightsError: the checkpoint cannot be found or read.
        DataError: the images cannot be found or read.
    """
    model = rebuild_float(manifest, find_checkpoint(manifest, weights))
    calibration = find_calibration(manifest, calib_data)
    try:
        stages = recall(manifest, model, calibration) or run_stages(
            model, calibration, manifest.recipe
        )
    except UsageError as error:  # for example, the recipe names a layer that does not exist
        raise _invalid_network(manifest, error) from error
    if isinstance(stages.deployed, QuantizedModel):
        _require_same_network(manifest, stages.deployed)
    return stages


def rebuild_float(manifest: Manifest, checkpoint: Path | None) -> FloatModel:
    """Build the float network of a manifest.

    Args:
        manifest: The manifest of an artifact.
        checkpoint: The checkpoint, from `find_checkpoint`.

    Raises:
        ArtifactError: the manifest describes a network that cannot be built.
        OtherInputsError: the weights are not those of the manifest.
        WeightsError: the weights cannot be downloaded or read.
    """
    spec, recorded = manifest.spec, manifest.weights
    if isinstance(spec, CodeSpec):
        model = _rebuild_code(manifest, spec, checkpoint)
        _require_weights(manifest, model)
        return replace(model, info=model.info.with_labels(manifest.labels))
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
        raise _invalid_network(manifest, error) from error
    info = model.info
    _require_weights(manifest, model)
    if recorded.source != "file":  # published weights read from a file have the same sha256
        provenance = replace(info.provenance, source=recorded.source, origin=recorded.origin)
        info = replace(info, name=spec.name, source=asdict(spec), provenance=provenance)
    return replace(model, info=info.with_labels(manifest.labels))


def _require_weights(manifest: Manifest, model: FloatModel) -> None:
    """Raise OtherInputsError unless the weights have the sha256 of the manifest."""
    if model.info.provenance.sha256 != manifest.weights.sha256:
        raise OtherInputsError(
            f"The weights of {model.info.provenance.origin} are not those of the artifact.",
            remedy=_WEIGHTS_REMEDY,
        )


def _rebuild_code(manifest: Manifest, spec: CodeSpec, checkpoint: Path | None) -> FloatModel:
    """Build the network of the user's code again, if the source is still the same.

    Raises:
        ArtifactError: the network was given as a module in Python.
        LoadError: the source cannot be found.
        OtherInputsError: the source has changed.
    """
    if not spec.code:
        raise ArtifactError(
            f"{manifest.path}: the network was given as a module in Python, so it cannot be built"
            " again.",
            remedy="Export it from code: mobiledeploy export net.py:create.",
        )
    place, name = source_of(spec.code)
    moved = manifest.code_paths()
    found = next((path for path in moved if path.is_file()), None) if is_file(place) else None
    path = found or source_file(place)
    if sha256_of(path) != spec.code_sha256:
        raise OtherInputsError(
            f"{path} is not the source that the artifact was exported from: its sha256 is"
            f" {sha256_of(path)[:12]}..., expected {spec.code_sha256[:12]}...",
            remedy="Restore the file, or export the artifact again.",
        )
    return build_code(
        f"{path}:{name}" if is_file(place) else spec.code,
        arguments=spec.arguments,
        weights=str(checkpoint) if checkpoint else spec.weights or None,
        preprocessing=manifest.preprocessing,
        resolution=spec.resolution,
        in_channels=spec.in_channels,
        input=spec.input,
        seed=spec.seed,
        task=spec.task,
        outputs=[f"{each.name}:{each.task}" for each in spec.outputs],
        activation=spec.activation,
    )


def _invalid_network(manifest: Manifest, error: UsageError) -> ArtifactError:
    """Return the error for a manifest that was edited; the user's command is not at fault."""
    return ArtifactError(
        f"The manifest {manifest.path} describes an invalid network: {error.message}",
        remedy="Restore the manifest, or export the artifact again.",
    )


def _require_same_network(manifest: Manifest, found: QuantizedModel) -> None:
    """Raise ArtifactError unless the int8 network is the one that the manifest describes."""
    recorded = {name: record.encoding for name, record in manifest.encodings.items()}
    moved = _different_keys(recorded, found.encodings)
    if found.encodings_digest == manifest.encodings_sha256 and not moved:
        return
    difference = (
        f"{len(moved)} of {len(found.encodings)} activation encodings differ; the first is that of"
        f" {moved[0]}"
        if moved
        else "all activation encodings agree, but weights were rounded differently"
    )
    tools = manifest.tool_versions
    names = ("mobiledeploy", "torch", "torchao")
    versions = ", ".join(f"{name} {tools[name]}" for name in names if name in tools)
    raise ArtifactError(
        f"The network could not be rebuilt from the manifest {manifest.path}: {difference}.",
        remedy=f"Rebuild it with the versions that made it ({versions}), or export the artifact"
        " again. If the manifest was edited, restore it. `mobiledeploy reproduce` shows what"
        " differs.",
    )


def _different_keys(one: Mapping[str, Encoding], other: Mapping[str, Encoding]) -> list[str]:
    """Return the names whose encodings differ, or that exist in only one of the two."""
    return [name for name in {**other, **one} if one.get(name) != other.get(name)]


def find_checkpoint(manifest: Manifest, given: Path | None = None) -> Path | None:
    """Return the checkpoint file, or None if the weights are published or random.

    Args:
        manifest: Has the path of the export and the sha256.
        given: The path of the checkpoint now; no other place is searched.

    Raises:
        UsageError: a file is given, but the weights are random.
        WeightsError: there is no file.
        OtherInputsError: no file has the sha256 of the manifest.
    """
    recorded = manifest.weights
    if recorded.source == "random" and given is not None:
        raise UsageError(
            f"The weights are random ({recorded.origin}) and come from no file.",
            remedy="Leave --weights out.",
        )
    if recorded.source != "file" and given is None:
        return None
    paths = manifest.checkpoint_paths(given)
    found = [path for path in paths if path.is_file()]
    for path in found:
        if sha256_of(path) == recorded.sha256:
            return path
    where = " and ".join(str(path) for path in found or paths)
    if not found:
        raise WeightsError(
            f"The checkpoint is no longer at {where}.", remedy="Pass its path with --weights."
        )
    raise OtherInputsError(
        f"The weights at {where} are not those of the artifact: the sha256 is"
        f" {sha256_of(found[0])[:12]}..., expected {str(recorded.sha256)[:12]}...",
        remedy=_WEIGHTS_REMEDY,
    )


def find_calibration(manifest: Manifest, given: Path | None = None) -> CalibrationSet | None:
    """Load the calibration images, or return None for a float network.

    Args:
        manifest: Has the path of the export, the number of images and the sha256 of their list.
        given: The path of the images now; no other place is searched.

    Raises:
        UsageError: images are given, but the network is a float network.
        DataError: there are no images, too few, or one cannot be read.
        OtherInputsError: no images have the sha256 of the manifest.
    """
    recorded = manifest.calibration
    if recorded is None:
        if given is not None:
            raise UsageError(
                "The artifact is a float network and has no calibration.",
                remedy="Leave --calib-data out.",
            )
        return None
    paths = manifest.calibration_paths(given)
    embedded = recorded.source == EMBEDDED and given is None
    sources = [None] if embedded else [path for path in paths if path.exists()]
    if not sources:
        raise DataError(
            f"The calibration images are no longer at {' and '.join(map(str, paths))}, and the"
            " int8 network cannot be rebuilt without them.",
            remedy="Pass their path with --calib-data.",
        )
    rejected: list[str] = []
    unusable: list[str] = []
    for source in sources:
        try:
            images = _load(manifest, source, recorded.count)
        except DataError as error:
            unusable.append(error.message)
            continue
        if images.sha256 == recorded.sha256:
            return images
        name = "the bundled images" if source is None else f"those of {source}"
        rejected.append(f"{name} have the sha256 {images.sha256[:12]}...")
    if not rejected:
        raise DataError(" ".join(unusable), remedy=_IMAGES_REMEDY)
    raise OtherInputsError(
        f"The calibration images are not those of the artifact: {' and '.join(rejected)},"
        f" expected {recorded.sha256[:12]}... for {recorded.count} images.",
        remedy=_IMAGES_REMEDY,
    )


def _load(manifest: Manifest, source: Path | None, count: int) -> CalibrationSet:
    if source is None:
        return embedded_calibration(manifest.info, count)
    return load_calibration(source, manifest.info, samples=count, for_calibration=True)
