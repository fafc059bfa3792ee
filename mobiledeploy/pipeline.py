"""The stages in order, and the only module that knows them all.

spec ─▶ build ─▶ fold ─▶ equalize ─▶ quantize ─▶ export ─▶ parity
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobiledeploy import data, models
from mobiledeploy import weights as _weights
from mobiledeploy.climb import Networks, climb
from mobiledeploy.equalize import equalize
from mobiledeploy.errors import DataError, UsageError
from mobiledeploy.export import artifact_name, export_executorch, export_onnx
from mobiledeploy.export.manifest import write_manifest
from mobiledeploy.files import moved_when_done, require_home_for_artifacts
from mobiledeploy.fold import fold
from mobiledeploy.progress import step
from mobiledeploy.quantize import learn_factors, quantize
from mobiledeploy.quantize.by_layer import measure_layers
from mobiledeploy.quantize.prepare import plan, round_parameters
from mobiledeploy.report.document import summary
from mobiledeploy.single_thread import on_one_thread
from mobiledeploy.types import (
    FAMILIES,
    Artifact,
    CalibrationSet,
    FloatDemand,
    FloatModel,
    FoldedModel,
    Format,
    ModelSpec,
    ParityReport,
    Preprocessing,
    QuantizedModel,
    QuantRecipe,
    SensitivityReport,
    family_named,
)
from mobiledeploy.verify.tolerances import default_tolerances

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mobiledeploy.export.manifest import Manifest

__all__ = [
    "Deployment",
    "build",
    "deploy",
    "equalize",
    "fold",
    "load_images",
    "measure_sensitivity",
]

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


@on_one_thread
def build(
    model: str | None = None,
    *,
    config: Path | None = None,
    weights: str | None = None,
    preprocessing: Preprocessing | Mapping[str, Any] | None = None,
    labels: Path | None = None,
    **fields: Any,
) -> FloatModel:
    """Build a network and load its weights.

    Args:
        model: "v1", "v2", "v3-large" (or "v3"), "v3-small"; may be left out where `config` says it.
        config: A YAML file with fields of `ModelSpec` (see `models.config`).
        weights: "imagenet" (the default), "random", or the path of a checkpoint, from whose tensors
            width and number of classes are read.
        preprocessing: Overrides what the weights imply; a mapping, only the fields that it names.
        labels: A file with one class name a line; ImageNet's by default for 1000 trained classes.
        **fields: Any other field of `ModelSpec`; it overrides the file's. What is given, here or
            there, must not contradict the weights.

    Raises:
        UsageError: no such family, fields that contradict one another, or preprocessing that makes
            no inputs of the network.
        LoadError: the file cannot be read.
        WeightsError: the weights cannot be had, read or mapped onto the network.
    """
    given = _given(model, config) | fields | ({} if weights is None else {"weights": weights})
    asked = ModelSpec(**given)
    models.validate(asked)
    with step("Building the network"):
        resolved = _weights.resolve(asked, set(given), models.create_on_meta)
        preprocessing = _preprocessing(preprocessing, resolved)
        module = models.create(resolved.spec)
        if resolved.spec.weights == "random":
            models.randomize_batch_norm(module, resolved.spec.seed)
    provenance = _weights.load_weights(module, resolved.spec)
    names = resolved.labels
    notes = resolved.notes
    if len(names) not in (0, resolved.spec.num_classes):
        classes = resolved.spec.num_classes
        notes += (f"{len(names)} labels came with it, for {classes} classes: none is taken.",)
        names = ()
    if labels is not None or (resolved.spec.weights != "random" and not names):
        names = data.load_labels(labels, resolved.spec.num_classes)
    return FloatModel(
        spec=resolved.spec,
        module=module.eval(),
        provenance=replace(provenance, notes=(*notes, *provenance.notes)),
        preprocessing=preprocessing,
        labels=names,
    )


def _given(model: str | None, config: Path | None) -> dict[str, Any]:
    """Return the fields of `ModelSpec` that a model's name and a file state."""
    if config is not None:
        return models.read_config(config, model)
    if model is None:
        raise UsageError(
            "No model was named.", remedy=f"Name one of {', '.join(FAMILIES)}, or give --config."
        )
    return {"family": family_named(model)}


def _preprocessing(
    given: Preprocessing | Mapping[str, Any] | None, resolved: _weights.Resolution
) -> Preprocessing:
    """Return what is given, filled up with what the weights imply.

    Checked here, whether or not images will be loaded: artifacts carry it to the phone.
    """
    implied = resolved.preprocessing or data.default_preprocessing(resolved.spec.in_channels)
    whole = given if isinstance(given, Preprocessing) else replace(implied, **(given or {}))
    data.check_preprocessing(whole, resolved.spec)
    return whole


def load_images(
    model: FloatModel | FoldedModel | QuantizedModel | Manifest,
    source: Path | None,
    samples: int | None = None,
) -> CalibrationSet:
    """Load images as the network expects them; without a source, those that the package carries.

    Args:
        model: The network, or the manifest that tells of it.
        source: A folder or a file.
        samples: How many; None takes all.

    Raises:
        DataError: there are none, too few, or one cannot be read.
    """
    if source is None:
        return data.embedded_calibration(model.spec, model.preprocessing, samples)
    return data.load_calibration(
        source, preprocessing=model.preprocessing, spec=model.spec, samples=samples
    )


def take_through_stages(
    model: FloatModel,
    calibration: CalibrationSet | None,
    recipe: QuantRecipe | None,
    demand: FloatDemand | None = None,
) -> Networks:
    """Fold a built network and, where there are images, equalize and quantize it.

    Raises:
        ExportError: the network holds an operator without an int8 form.
    """
    with step("Folding BatchNorm"):
        folded = fold(model)
    equalized: FoldedModel | None = None
    deployed: QuantizedModel | FoldedModel = folded
    if calibration is not None:
        equalized = _rescaled(folded, calibration, recipe or QuantRecipe())
        deployed = quantize(equalized, calibration, recipe, demand)
    return Networks(
        original=model,
        folded=folded,
        equalized=equalized,
        deployed=deployed,
        calibration=calibration,
    )


def _rescaled(folded: FoldedModel, calibration: CalibrationSet, recipe: QuantRecipe) -> FoldedModel:
    """Return the network with its channels rescaled as a recipe asks for."""
    if recipe.factors == "given":
        return folded
    even = equalize(folded, calibration)
    if recipe.factors == "even":
        return even
    return learn_factors(even, calibration, thorough=recipe.rounding == "learned")


@on_one_thread
def measure_sensitivity(
    model: FloatModel,
    calibration: CalibrationSet,
    images: CalibrationSet,
    recipe: QuantRecipe | None = None,
) -> SensitivityReport:
    """Measure what each layer's int8 costs, and what keeping it in float would bring back.

    Args:
        model: From `build`.
        calibration: Images to quantize with.
        images: To measure on.
        recipe: How to quantize.

    Raises:
        ExportError: the network holds an operator without an int8 form.
    """
    recipe = recipe or QuantRecipe()
    with step("Folding BatchNorm"):
        folded = fold(model)
    planned = plan(_rescaled(folded, calibration, recipe), calibration, recipe)
    rounded = round_parameters(planned, recipe, calibration.images)
    alone = round_parameters(planned, recipe, calibration.images, alone=True)
    int8_sqnr_db, layers = measure_layers(planned, rounded, alone, images.images)
    return SensitivityReport(
        network=model.spec.name,
        int8_sqnr_db=int8_sqnr_db,
        source=images.source,
        count=images.count,
        calibration_source=calibration.source,
        layers=layers,
    )


def deploy(
    model: FloatModel,
    *,
    formats: Sequence[Format] = ("pte",),
    calibration: CalibrationSet | None,
    recipe: QuantRecipe | None = None,
    demand: FloatDemand | None = None,
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
            report = _check(networks, [artifact.path for artifact in written], checked_on, demand)
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
    try:
        images = calibration or data.embedded_calibration(model.spec, model.preprocessing)
    except DataError as error:
        raise DataError(
            f"The images of this package cannot check the artifacts: {error.message}",
            remedy="Give --no-parity, and images of your own to `mobiledeploy parity` afterwards.",
        ) from error
    return images.spread(_PARITY_IMAGES)


def _check(
    networks: Networks, paths: Sequence[Path], images: CalibrationSet, demand: FloatDemand | None
) -> ParityReport:
    """Run the artifacts on images, against the network that they should be."""
    tolerances = default_tolerances(networks.original.spec.family)
    if demand is not None and demand.min_sqnr_db is not None:
        tolerances = replace(tolerances, min_sqnr_db=demand.min_sqnr_db)
    return climb(networks, paths, images, tolerances=tolerances, quick=True)
