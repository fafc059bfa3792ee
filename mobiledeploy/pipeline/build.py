"""The stages in order, and the only module that knows them all.

spec ─▶ build ─▶ fold ─▶ equalize ─▶ quantize ─▶ export ─▶ parity
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobiledeploy.checkpoints.load import load_weights
from mobiledeploy.checkpoints.resolve import Resolution, resolve
from mobiledeploy.data.calibration import embedded_calibration, load_calibration
from mobiledeploy.data.labels import load_labels
from mobiledeploy.data.preprocess import check_preprocessing, default_preprocessing
from mobiledeploy.errors import UsageError
from mobiledeploy.graph.fold_batch_norm import fold
from mobiledeploy.models.build import create, create_on_meta
from mobiledeploy.models.config import read_config
from mobiledeploy.models.initialize import randomize_batch_norm
from mobiledeploy.models.spec import FAMILIES, ModelSpec, family_named
from mobiledeploy.models.validate import validate
from mobiledeploy.network import (
    CalibrationSet,
    FloatModel,
    FoldedModel,
    Preprocessing,
    QuantizedModel,
    QuantRecipe,
    Stages,
)
from mobiledeploy.quantization.equalize import equalize
from mobiledeploy.quantization.learned_equalization import learn_equalization
from mobiledeploy.quantization.mixed_precision import MixedPrecision
from mobiledeploy.quantization.ptq import quantize
from mobiledeploy.utils.progress import step
from mobiledeploy.utils.threads import on_one_thread

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mobiledeploy.artifact.manifest import Manifest


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
        config: A YAML file with fields of `ModelSpec` (see `config`).
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
    validate(asked)
    with step("Building the network"):
        resolved = resolve(asked, set(given), create_on_meta)
        preprocessing = _preprocessing(preprocessing, resolved)
        module = create(resolved.spec)
        if resolved.spec.weights == "random":
            randomize_batch_norm(module, resolved.spec.seed)
        provenance = load_weights(module, resolved.spec)
    names = resolved.labels
    notes = resolved.notes
    if len(names) not in (0, resolved.spec.num_classes):
        classes = resolved.spec.num_classes
        notes += (f"{len(names)} labels came with it, for {classes} classes: none is taken.",)
        names = ()
    if labels is not None or (resolved.spec.weights != "random" and not names):
        names = load_labels(labels, resolved.spec.num_classes)
    return FloatModel(
        info=resolved.spec.network_info(
            replace(provenance, notes=(*notes, *provenance.notes)), preprocessing, names
        ),
        module=module.eval(),
    )


def _given(model: str | None, config: Path | None) -> dict[str, Any]:
    """Return the fields of `ModelSpec` that a model's name and a file state."""
    if config is not None:
        return read_config(config, model)
    if model is None:
        raise UsageError(
            "No model was named.", remedy=f"Name one of {', '.join(FAMILIES)}, or give --config."
        )
    return {"family": family_named(model)}


def _preprocessing(
    given: Preprocessing | Mapping[str, Any] | None, resolved: Resolution
) -> Preprocessing:
    """Return what is given, filled up with what the weights imply.

    Checked here, whether or not images will be loaded: artifacts carry it to the phone.
    """
    implied = resolved.preprocessing or default_preprocessing(resolved.spec.in_channels)
    whole = given if isinstance(given, Preprocessing) else replace(implied, **(given or {}))
    check_preprocessing(whole, resolved.spec.in_channels)
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
        return embedded_calibration(model.info, samples)
    return load_calibration(source, model.info, samples=samples)


def take_through_stages(
    model: FloatModel,
    calibration: CalibrationSet | None,
    recipe: QuantRecipe | None,
    demand: MixedPrecision | None = None,
) -> Stages:
    """Fold a built network and, where there are images, equalize and quantize it.

    Raises:
        ExportError: the network holds an operator without an int8 form.
    """
    with step("Folding BatchNorm"):
        folded = fold(model)
    equalized: FoldedModel | None = None
    deployed: QuantizedModel | FoldedModel = folded
    if calibration is not None:
        equalized = rescaled(folded, calibration, recipe or QuantRecipe())
        with step("Quantizing to int8"):
            deployed = quantize(equalized, calibration, recipe, demand)
    return Stages(
        original=model,
        folded=folded,
        equalized=equalized,
        deployed=deployed,
        calibration=calibration,
    )


def rescaled(folded: FoldedModel, calibration: CalibrationSet, recipe: QuantRecipe) -> FoldedModel:
    """Return the network with its channels rescaled as a recipe asks for."""
    if recipe.equalization == "none":
        return folded
    with step("Equalizing across layers"):
        even = equalize(folded, calibration)
    if recipe.equalization == "cross-layer":
        return even
    with step("Learning the equalization"):
        return learn_equalization(even, calibration, thorough=recipe.rounding == "learned")
