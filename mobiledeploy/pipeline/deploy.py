"""Take a built network to checked artifacts: stages, export, parity, gates, manifests."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mobiledeploy.artifact.artifact import Artifact, Format
from mobiledeploy.artifact.coverage import require_int8
from mobiledeploy.artifact.manifest import manifest_path, write_manifest
from mobiledeploy.data.calibration import embedded_calibration
from mobiledeploy.errors import DataError, GateError, UsageError
from mobiledeploy.export.write import artifact_name, export
from mobiledeploy.parity.ladder import require_passed
from mobiledeploy.parity.report.json_report import summary
from mobiledeploy.parity.run_ladder import run_ladder
from mobiledeploy.parity.tolerances import default_tolerances
from mobiledeploy.pipeline.build import load_images
from mobiledeploy.pipeline.check_training_match import check_training_match
from mobiledeploy.pipeline.network_cache import remember
from mobiledeploy.pipeline.stages import run_stages
from mobiledeploy.runtimes.trial import remember_tried
from mobiledeploy.stages import CalibrationSet, FloatModel, recipe_of
from mobiledeploy.utils.arguments import (
    FROM_MODULE,
    StrPath,
    as_names,
    as_path,
    require_instance,
)
from mobiledeploy.utils.files import moved_when_done, require_artifact_folder
from mobiledeploy.utils.progress import step, warn

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mobiledeploy.parity.types import ParityReport
    from mobiledeploy.quantization.mixed_precision import MixedPrecision
    from mobiledeploy.stages import (
        FoldedModel,
        QuantizedModel,
        QuantRecipe,
        Stages,
    )
    from mobiledeploy.training_match.verdict import TrainingMatch

_PARITY_IMAGES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What `deploy` wrote.

    Attributes:
        model: The network that the artifacts encode.
        artifacts: The files, in the order of the formats. If a gate failed, their names say so:
            `NAME.failed.pte`.
        manifests: The manifest of each artifact, in the same order.
        parity: The parity report; None if parity was not checked.
        failure: The error of the gate that failed; None if all gates passed.
        kept: Artifacts of an earlier export that are still in place because a gate failed.
    """

    model: QuantizedModel | FoldedModel
    artifacts: tuple[Artifact, ...]
    manifests: tuple[Path, ...]
    parity: ParityReport | None
    failure: GateError | None = None
    kept: tuple[Path, ...] = ()

    def require_passed(self) -> None:
        """Raise unless all gates passed.

        Raises:
            GateError: parity failed, or too little is computed in int8.
        """
        if self.failure is not None:
            raise self.failure


def deploy(
    model: FloatModel,
    *,
    formats: str | Sequence[str] = (Format.PTE,),
    calibration: CalibrationSet | StrPath | None,
    recipe: QuantRecipe | str | None = None,
    mixed_precision: MixedPrecision | None = None,
    out: StrPath = "exports",
    parity: bool = True,
    min_int8_coverage: float | None = None,
    allow_mismatch: bool = False,
) -> Deployment:
    """Quantize and export a built network, and check the artifacts.

    If a gate fails, the artifacts of an earlier export stay in place and the new ones are written
    as `NAME.failed.pte`. An export that passes removes such files of an earlier one.

    Args:
        model: The network, from `build`.
        formats: One or more of "pte", "onnx" and "tflite".
        calibration: Images to quantize with, or where `load_images` finds them; None exports in
            float.
        recipe: How to quantize, or "fast", "balanced" or "best"; None for "balanced".
        mixed_precision: Chooses the layers that stay in float; None for those of the recipe.
        out: The folder to write to.
        parity: Whether to run the artifacts and compare them with the network.
        min_int8_coverage: Least share of multiply-accumulates and of activations in int8; None
            for no limit.
        allow_mismatch: Whether to go on if the BatchNorm statistics say that this is plainly not
            the network that was trained.

    Returns:
        The artifacts and their manifests. `require_passed` raises the error of a failed gate.

    Raises:
        UsageError: there is no such format, one of the formats cannot return what is asked for, or
            the folder's path is not UTF-8.
        DataError: the bundled images cannot check this float network.
        GateError: the network is plainly not the one that was trained.
        ExportError: an exporter refused the network.
        RuntimeFailedError: an artifact could not be written or run.
    """
    require_instance(model, FloatModel, "model", FROM_MODULE)
    if calibration is not None and not isinstance(calibration, CalibrationSet):
        calibration = load_images(model, calibration, for_calibration=True)
    out = as_path(out, "out")
    wanted = [_format(name) for name in as_names(formats)]
    _require_possible(model, is_int8=calibration is not None)
    require_artifact_folder(out)
    images = _parity_images(model, calibration) if parity else None
    match = _training_match(model, calibration or images, allow_mismatch=allow_mismatch)
    chosen = None if recipe is None else recipe_of(recipe)
    stages = run_stages(model, calibration, chosen, mixed_precision)
    deployed = stages.deployed
    with moved_when_done(out) as folder:
        artifacts = [export(deployed, f, folder / artifact_name(deployed, f)) for f in wanted]
        report = None
        if images is not None:
            with step("Checking parity"):
                report = _check_parity(stages, artifacts, images, mixed_precision)
        kept: list[Path] = []
        if _failed_gate(artifacts, report, min_int8_coverage):
            earlier = [out / artifact.path.name for artifact in artifacts]
            kept = [path for path in earlier if path.is_file()]
            artifacts, report = _rename_failed(artifacts, report)
        failure = _failed_gate(artifacts, report, min_int8_coverage)
        found = None if report is None else summary(report)
        training = None if match is None else match.document()
        manifests = [
            write_manifest(artifact, deployed, found, training, home=out) for artifact in artifacts
        ]
    if failure is None:
        _remove_failed(out / artifact.path.name for artifact in artifacts)
    remember(stages)
    for artifact in artifacts:
        remember_tried(out / artifact.path.name)
    return Deployment(
        model=deployed,
        artifacts=tuple(replace(artifact, path=out / artifact.path.name) for artifact in artifacts),
        manifests=tuple(out / path.name for path in manifests),
        parity=report,
        failure=failure,
        kept=tuple(kept),
    )


def _training_match(
    model: FloatModel, images: CalibrationSet | None, *, allow_mismatch: bool
) -> TrainingMatch | None:
    """Return how well the network matches its training on these images."""
    if images is None:
        return None
    with step("Comparing with the training statistics"):
        return check_training_match(model, images, allow_mismatch=allow_mismatch)


def _format(name: str) -> Format:
    for known in Format:
        if known == name:
            return known
    raise UsageError(f"There is no format {name!r}.", remedy=f"Choose from {', '.join(Format)}.")


def _require_possible(model: FloatModel, *, is_int8: bool) -> None:
    """Raise UsageError unless artifacts can return the outputs as it is asked for."""
    answers = {output.activation for output in model.info.outputs}
    if "codes" in answers and not is_int8:
        raise UsageError(
            "--output codes needs an int8 network: a float one has no codes.",
            remedy="Add --int8, or leave --output out.",
        )


def _parity_images(model: FloatModel, calibration: CalibrationSet | None) -> CalibrationSet:
    """Return some of the calibration images, or of the bundled images for a float network.

    Raises:
        DataError: the bundled images do not fit the network.
    """
    if calibration is not None:
        return calibration.spread(_PARITY_IMAGES)
    try:
        with step("Reading images for the parity check"):
            images = embedded_calibration(model.info)
    except DataError as error:
        raise DataError(
            f"The bundled images cannot check the artifacts: {error.message}",
            remedy="Pass --no-parity, then check with `mobiledeploy parity --data` and your own"
            " images.",
        ) from error
    return images.spread(_PARITY_IMAGES)


def _check_parity(
    stages: Stages,
    artifacts: Sequence[Artifact],
    images: CalibrationSet,
    mixed_precision: MixedPrecision | None,
) -> ParityReport:
    """Compare the artifacts with the network that they encode."""
    tolerances = default_tolerances(stages.original.info)
    if mixed_precision is not None and mixed_precision.min_sqnr_db is not None:
        tolerances = replace(tolerances, min_sqnr_db=mixed_precision.min_sqnr_db)
    paths = [artifact.path for artifact in artifacts]
    return run_ladder(stages, paths, images, tolerances=tolerances, quick=True)


def _failed_gate(
    artifacts: Sequence[Artifact], report: ParityReport | None, min_int8_coverage: float | None
) -> GateError | None:
    """Return the error of the first gate that failed."""
    try:
        if report is not None:
            require_passed(report)
        if min_int8_coverage is not None:
            for artifact in artifacts:
                require_int8(artifact.path.name, artifact.coverage, min_int8_coverage)
    except GateError as error:
        return error
    return None


def _rename_failed(
    artifacts: Sequence[Artifact], report: ParityReport | None
) -> tuple[list[Artifact], ParityReport | None]:
    """Rename artifacts to `NAME.failed.SUFFIX`, in the report too."""
    names: dict[str, str] = {}
    renamed = []
    for artifact in artifacts:
        path = artifact.path
        target = _failed_path(path)
        path.rename(target)
        names[path.name] = target.name
        renamed.append(replace(artifact, path=target))
    if report is None:
        return renamed, None
    compared = [entry.model_copy(update={"file": names[entry.file]}) for entry in report.artifacts]
    rungs = [
        rung.model_copy(update={"artifact": names.get(rung.artifact, "")}) for rung in report.rungs
    ]
    return renamed, report.model_copy(update={"artifacts": tuple(compared), "rungs": tuple(rungs)})


def _remove_failed(artifacts: Iterable[Path]) -> None:
    """Remove what an earlier export that failed has left beside these artifacts."""
    for artifact in artifacts:
        failed = _failed_path(artifact)
        for path in (failed, manifest_path(failed)):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                warn(f"{path}, of an earlier export that failed, could not be removed: {error}")


def _failed_path(artifact: Path) -> Path:
    return artifact.with_name(f"{artifact.stem}.failed{artifact.suffix}")
