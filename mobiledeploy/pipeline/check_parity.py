"""Compare artifacts with the network that their manifests describe."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mobiledeploy.artifact.manifest import read_manifest
from mobiledeploy.artifact.metadata import describe_input
from mobiledeploy.data.calibration import embedded_calibration, load_calibration
from mobiledeploy.devices.open import run_artifact
from mobiledeploy.errors import ArtifactError, DataError, UsageError
from mobiledeploy.parity.baseline import read_baseline, regressions, require_comparable
from mobiledeploy.parity.resizes import measure_resizes
from mobiledeploy.parity.run_ladder import run_ladder
from mobiledeploy.parity.tolerances import default_tolerances
from mobiledeploy.parity.types import ParityReport
from mobiledeploy.pipeline.build import load_images
from mobiledeploy.pipeline.check_training_match import check_training_match
from mobiledeploy.pipeline.rebuild import rebuild
from mobiledeploy.runtimes.open import open_runner
from mobiledeploy.runtimes.trial import require_runnable
from mobiledeploy.stages import EMBEDDED
from mobiledeploy.utils.arguments import StrPath, as_path, as_paths, require_device
from mobiledeploy.utils.progress import step

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mobiledeploy.artifact.manifest import Manifest
    from mobiledeploy.devices.open import Device
    from mobiledeploy.network import InputSpec, Interpolation
    from mobiledeploy.parity.tolerances import Tolerances
    from mobiledeploy.parity.types import ResizeEffect
    from mobiledeploy.stages import CalibrationSet, FloatModel, Stages


def check_parity(
    artifacts: StrPath | Sequence[StrPath],
    source: StrPath | None = None,
    *,
    samples: int | None = None,
    min_sqnr_db: float | None = None,
    min_top1_agreement: float | None = None,
    weights: StrPath | None = None,
    calib_data: StrPath | None = None,
    layers: bool = False,
    worst: int = 0,
    baseline: ParityReport | StrPath | None = None,
    device: Device | None = None,
    resizes: bool = False,
    allow_mismatch: bool = False,
) -> ParityReport:
    """Build the network of the artifacts' manifests again and run the parity ladder.

    Args:
        artifacts: One or more artifacts of one network, each with its manifest beside it.
        source: Images; by default the calibration images, if they can still be found.
        samples: Number of images to compare; None for all.
        min_sqnr_db: Least SQNR against float in dB. The default for int8 networks depends on the
            architecture. A given limit holds for every artifact, also for float networks and random
            weights.
        min_top1_agreement: Least share of images with float's top class, 0 to 1; as above.
        weights: The checkpoint, if it has moved.
        calib_data: The calibration images, if they have moved.
        layers: Whether to measure the quantization noise of each layer.
        worst: Number of images to show on which the last rung is farthest from float.
        baseline: An earlier report, or the file that `--json` wrote; the new report lists what is
            worse.
        device: An open device that runs the artifacts too, as the last rungs.
        resizes: Whether to measure what the resize functions of phones would change.
        allow_mismatch: Whether to go on if this is plainly not the network that was trained, or
            the images are of another kind.

    Raises:
        GateError: the network is plainly not the one that was trained.
        UsageError: an agreement is asked for of outputs that are no classes.
        ArtifactError: an artifact or manifest is missing or damaged, the artifacts are of different
            networks, or the network cannot be built again.
        DataError: there are no images, or the baseline is of another network or other images.
        RuntimeFailedError: a runtime or the device failed.
    """
    artifacts = as_paths(artifacts, "artifacts")
    if baseline is not None and not isinstance(baseline, ParityReport):
        baseline = read_baseline(as_path(baseline, "baseline"))
    require_device(device)
    checkpoint = None if weights is None else as_path(weights, "weights")
    calibration = None if calib_data is None else as_path(calib_data, "calib_data")
    with step("Reading manifests"):
        manifests = [read_manifest(path) for path in artifacts]
        _require_one_network(artifacts, manifests)
        for path, manifest in zip(artifacts, manifests, strict=True):
            require_matching_metadata(path, manifest)
    first = manifests[0]
    tolerances = _tolerances(first, min_sqnr_db, min_top1_agreement)
    # Device, baseline and images are checked before the network is built, which takes minutes.
    place = ""
    if device is not None:
        with step(f"Connecting to {device.uri}"):
            place = device.host.label
    if baseline is not None:
        require_comparable(baseline, network=first.info.name, precision=first.precision)
    if resizes:
        recorded = EMBEDDED if first.calibration is None else first.calibration.source
        _folder_of(str(source or calibration or recorded))
    given = None if source is None else load_images(first, source, samples)
    stages = rebuild(first, weights=checkpoint, calib_data=calibration)
    images = given or load_images(first, _calibration_path(stages), samples, for_calibration=True)
    with step("Comparing with the training statistics"):
        check_training_match(stages.original, images, allow_mismatch=allow_mismatch)
    report = run_ladder(
        stages,
        artifacts,
        images,
        tolerances=tolerances,
        layers=layers,
        worst=worst,
        on_device=None if device is None else partial(run_artifact, device),
    )
    if device is not None:
        report = report.model_copy(update={"device": place})
    if resizes:
        effects = _measure_resizes(stages.original, images)
        report = report.model_copy(update={"resizes": effects})
    if baseline is None:
        return report
    return report.model_copy(update={"regressions": regressions(baseline, report)})


def _tolerances(
    manifest: Manifest, min_sqnr_db: float | None, min_top1_agreement: float | None
) -> Tolerances:
    """Return the default tolerances of a network with the user's limits."""
    task = manifest.info.task
    if min_top1_agreement is not None and task != "classes":
        raise UsageError(
            f"The outputs of {manifest.info.name} are no classes ({task}): there is no top class to"
            " agree on.",
            remedy="Leave --min-agreement out, and use --min-sqnr.",
        )
    limits = {"min_sqnr_db": min_sqnr_db, "min_top1_agreement": min_top1_agreement}
    demanded = {name: limit for name, limit in limits.items() if limit is not None}
    return replace(default_tolerances(manifest.info), demanded=demanded, **demanded)


def _folder_of(source: str) -> Path | None:
    """Return the folder of image files that a set was read from; None for the bundled images.

    Raises:
        DataError: it was read from a file of resized images.
    """
    if source == EMBEDDED:
        return None
    if Path(source).is_file():
        raise DataError(
            f"{source} holds images that are resized already, so no other resize can be tried.",
            remedy="Leave --resizes out, or pass a folder of image files with --data.",
        )
    return Path(source)


def _measure_resizes(model: FloatModel, images: CalibrationSet) -> tuple[ResizeEffect, ...]:
    """Return what other ways to resize the same images would change."""
    folder = _folder_of(images.source)

    def load(interpolation: Interpolation) -> CalibrationSet:
        preprocessing = replace(model.info.preprocessing, interpolation=interpolation)
        image = replace(model.info.input, preprocessing=preprocessing)
        info = replace(model.info, input=image)
        if folder is None:
            return embedded_calibration(info, images.count)
        return load_calibration(folder, info, samples=images.count, for_calibration=True)

    with step("Trying other ways to resize"):
        return measure_resizes(model, images, load)


def _calibration_path(stages: Stages) -> Path | None:
    """Return where the calibration images are; None for the bundled images."""
    source = EMBEDDED if stages.calibration is None else stages.calibration.source
    return None if source == EMBEDDED else Path(source)


def require_matching_metadata(path: Path, manifest: Manifest) -> None:
    """Raise unless the metadata inside an artifact agrees with its manifest.

    An app takes the preprocessing from the artifact, a rebuilt network from the manifest. If they
    differ, one of the two preprocesses images in the wrong way.

    Raises:
        ArtifactError: the artifact cannot be run, has no metadata, or a field differs.
    """
    require_runnable(path)
    with open_runner(path) as runner:
        found = _flatten(runner.metadata)
    if not found:
        raise ArtifactError(
            f"{path} has no mobiledeploy metadata, so it cannot be compared with its manifest.",
            remedy="Export it with `mobiledeploy export`.",
        )
    different = [
        f"{name} is {found.get(name)!r} in the artifact and {value!r} in the manifest"
        for name, value in _expected_metadata(manifest).items()
        if found.get(name) != value
    ]
    if different:
        raise ArtifactError(
            f"{path} and its manifest do not describe one network: {'; '.join(different)}.",
            remedy="Restore the two files of one export, or export the artifact again.",
        )


def _flatten(metadata: Mapping[str, object]) -> dict[str, object]:
    """Return metadata with nested fields as one name, for example `input.mean`."""
    flat: dict[str, object] = {}
    for key, value in metadata.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}": content for inner, content in value.items()}
        else:
            flat[key] = value
    return flat


def _expected_metadata(manifest: Manifest) -> dict[str, object]:
    """Return the metadata that `artifact.metadata` writes for the network of a manifest."""
    info = manifest.info
    return {
        "name": info.name,
        "precision": manifest.precision,
        **{f"input.{name}": value for name, value in _as_json(info.input).items()},
        "output.classes": info.classes,
        "weights.sha256": manifest.weights.sha256,
        "encodings_sha256": manifest.encodings_sha256,
    }


def _as_json(image: InputSpec) -> dict[str, object]:
    """Return an input as metadata hold it, without the layout, which depends on the format."""
    document: dict[str, object] = json.loads(json.dumps(describe_input(image)))
    del document["layout"]
    return document


def _require_one_network(artifacts: Sequence[Path], manifests: Sequence[Manifest]) -> None:
    """Raise ArtifactError unless all manifests describe the same network."""
    expected = _identity(manifests[0])
    for path, manifest in zip(artifacts, manifests, strict=True):
        different = [k for k, value in _identity(manifest).items() if value != expected[k]]
        if different:
            raise ArtifactError(
                f"{path} and {artifacts[0]} hold different networks and cannot be compared: their"
                f" manifests differ in {', '.join(different)}.",
                remedy="Run `mobiledeploy parity` for each; `mobiledeploy diff` shows how they"
                " differ.",
            )


def _identity(manifest: Manifest) -> dict[str, object]:
    """Return what defines the network, without the path of its weights."""
    weights = manifest.weights
    return {
        "spec": replace(manifest.spec, weights=""),
        "weights": (weights.source, weights.sha256, weights.dialect),
        "precision": manifest.precision,
        "encodings_sha256": manifest.encodings_sha256,
    }
