"""The stages in order, and the only module that knows them all.

spec ─▶ build ─▶ fold ─▶ equalize ─▶ quantize ─▶ export ─▶ parity
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mobiledeploy.artifact.artifact import Artifact, Format
from mobiledeploy.artifact.manifest import write_manifest
from mobiledeploy.data.calibration import embedded_calibration
from mobiledeploy.errors import DataError
from mobiledeploy.export.write import artifact_name, export_executorch, export_onnx
from mobiledeploy.network import (
    CalibrationSet,
    FloatModel,
    FoldedModel,
    QuantizedModel,
    QuantRecipe,
    Stages,
)
from mobiledeploy.parity.report.json_report import summary
from mobiledeploy.parity.run_ladder import run_ladder
from mobiledeploy.parity.tolerances import default_tolerances
from mobiledeploy.parity.types import ParityReport
from mobiledeploy.pipeline.build import take_through_stages
from mobiledeploy.quantization.mixed_precision import MixedPrecision
from mobiledeploy.utils.files import moved_when_done, require_home_for_artifacts
from mobiledeploy.utils.progress import step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


_PARITY_IMAGES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What `deploy` made.

    Attributes:
        model: The network that the artifacts encode.
        manifests: Beside each artifact, in the same order.
        parity: None where it was not asked for.
    """

    model: QuantizedModel | FoldedModel
    artifacts: tuple[Artifact, ...]
    manifests: tuple[Path, ...]
    parity: ParityReport | None


def deploy(
    model: FloatModel,
    *,
    formats: Sequence[Format] = ("pte",),
    calibration: CalibrationSet | None,
    recipe: QuantRecipe | None = None,
    demand: MixedPrecision | None = None,
    out: Path = Path("exports"),
    parity: bool = True,
) -> Deployment:
    """Take a built network all the way to artifacts, and check them.

    Args:
        model: From `build`.
        formats: Which artifacts to write.
        calibration: Images to quantize with; None exports float.
        recipe: How to quantize.
        demand: Which layers should compute in float.
        out: The folder to write to.
        parity: Whether to run the artifacts against the network.

    Returns:
        Artifacts with their manifests; `parity.passed` says whether they hold what they promise.

    Raises:
        UsageError: the folder's path is no text.
        DataError: a float network is to be checked, and the package's images do not fit it.
        ExportError: an exporter refused the network.
        RuntimeFailedError: an artifact could not be written or run.
    """
    require_home_for_artifacts(out)
    checked_on = _images_to_check_on(model, calibration) if parity else None
    networks = take_through_stages(model, calibration, recipe, demand)
    deployed = networks.deployed
    exporters: Mapping[Format, Callable[[QuantizedModel | FoldedModel, Path], Artifact]] = {
        "onnx": export_onnx,
        "pte": export_executorch,
    }
    # what was exported before stays, artifacts and manifests, until all that replaces it is there
    with moved_when_done(out) as folder:
        written = [
            exporters[name](deployed, folder / artifact_name(deployed, name)) for name in formats
        ]
        report = None
        if checked_on is not None:
            with step("Checking parity"):
                paths = [artifact.path for artifact in written]
                report = _check(networks, paths, checked_on, demand)
        found = None if report is None else summary(report)
        manifests = [write_manifest(artifact, deployed, found, home=out) for artifact in written]
    return Deployment(
        model=deployed,
        artifacts=tuple(replace(artifact, path=out / artifact.path.name) for artifact in written),
        manifests=tuple(out / path.name for path in manifests),
        parity=report,
    )


def _images_to_check_on(model: FloatModel, calibration: CalibrationSet | None) -> CalibrationSet:
    """Return some of the calibration's images; for a float network, of the package's own.

    Raises:
        DataError: the package's do not fit the network.
    """
    if calibration is not None:
        return calibration.spread(_PARITY_IMAGES)
    try:
        with step("Reading images for the parity check"):
            images = embedded_calibration(model.info)
    except DataError as error:
        raise DataError(
            f"The images of this package cannot check the artifacts: {error.message}",
            remedy="Give --no-parity, and images of your own to `mobiledeploy parity` afterwards.",
        ) from error
    return images.spread(_PARITY_IMAGES)


def _check(
    networks: Stages, paths: Sequence[Path], images: CalibrationSet, demand: MixedPrecision | None
) -> ParityReport:
    """Run the artifacts on images, against the network that they should be."""
    tolerances = default_tolerances(networks.original.info)
    if demand is not None and demand.min_sqnr_db is not None:
        tolerances = replace(tolerances, min_sqnr_db=demand.min_sqnr_db)
    return run_ladder(networks, paths, images, tolerances=tolerances, quick=True)
