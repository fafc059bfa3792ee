"""The stages between a built network and an artifact: fold, equalize, quantize."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mobiledeploy.data.pixels import artifact_inputs, folded_inputs
from mobiledeploy.graph.fold_batch_norm import fold
from mobiledeploy.graph.fold_preprocessing import fold_preprocessing
from mobiledeploy.quantization.equalize import equalize
from mobiledeploy.quantization.learned_equalization import learn_equalization
from mobiledeploy.quantization.ptq import quantize
from mobiledeploy.stages import QuantRecipe, Stages
from mobiledeploy.utils.progress import step

if TYPE_CHECKING:
    from mobiledeploy.network import InputSpec
    from mobiledeploy.quantization.mixed_precision import MixedPrecision
    from mobiledeploy.stages import CalibrationSet, FloatModel, FoldedModel


def run_stages(
    model: FloatModel,
    calibration: CalibrationSet | None,
    recipe: QuantRecipe | None = None,
    mixed_precision: MixedPrecision | None = None,
) -> Stages:
    """Fold a built network and, given calibration images, equalize and quantize it.

    Args:
        model: The network, from `build`.
        calibration: Images to quantize with; None stops after folding.
        recipe: How to quantize; None for `QuantRecipe()`.
        mixed_precision: Chooses the layers that stay in float; None for those of the recipe.

    Raises:
        ExportError: the network has an operator that cannot be quantized.
    """
    with step("Folding BatchNorm"):
        folded = fold_all(model)
    if calibration is None:
        return Stages(
            original=model, folded=folded, equalized=None, deployed=folded, calibration=None
        )
    calibration = folded_images(calibration, model.info.input)
    equalized = equalize_as(recipe or QuantRecipe(), folded, calibration)
    with step("Quantizing to int8"):
        quantized = quantize(equalized, calibration, recipe, mixed_precision)
    return Stages(
        original=model,
        folded=folded,
        equalized=equalized,
        deployed=quantized,
        calibration=calibration,
    )


def fold_all(model: FloatModel) -> FoldedModel:
    """Fold BatchNorm, and the preprocessing of pixels if the network takes them."""
    return fold_preprocessing(fold(model))


def folded_images(images: CalibrationSet, image: InputSpec) -> CalibrationSet:
    """Return images as the folded network reads them: normalised, or as planes of pixels.

    Raises:
        DataError: the network takes pixels, and the images were not made from pixels.
    """
    if not image.format.is_pixels:
        return images
    return replace(images, images=folded_inputs(artifact_inputs(images.images, image), image))


def equalize_as(
    recipe: QuantRecipe, folded: FoldedModel, calibration: CalibrationSet
) -> FoldedModel:
    """Return the network with the equalization that a recipe asks for."""
    if recipe.equalization == "none":
        return folded
    with step("Equalizing across layers"):
        equalized = equalize(folded, calibration)
    if recipe.equalization == "cross-layer":
        return equalized
    with step("Learning the equalization"):
        return learn_equalization(equalized, calibration, thorough=recipe.rounding == "learned")
