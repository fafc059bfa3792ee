"""Measure what int8 costs in each layer of a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobiledeploy.pipeline.check_training_match import check_training_match
from mobiledeploy.pipeline.stages import equalize_as, fold_all, folded_images
from mobiledeploy.quantization.make_plan import make_plan
from mobiledeploy.quantization.round_layers import round_layers
from mobiledeploy.quantization.sensitivity import SensitivityReport, measure_layers
from mobiledeploy.stages import QuantRecipe
from mobiledeploy.utils.progress import step
from mobiledeploy.utils.threads import on_one_thread

if TYPE_CHECKING:
    from mobiledeploy.stages import CalibrationSet, FloatModel


@on_one_thread
def measure_sensitivity(
    model: FloatModel,
    calibration: CalibrationSet,
    images: CalibrationSet,
    recipe: QuantRecipe | None = None,
    *,
    allow_mismatch: bool = False,
) -> SensitivityReport:
    """Measure what int8 costs in each layer, and what keeping the layer in float regains.

    Args:
        model: The network, from `build`.
        calibration: Images to quantize with.
        images: Images to measure on.
        recipe: How to quantize; None for `QuantRecipe()`.
        allow_mismatch: Whether to go on if this is plainly not the network that was trained.

    Raises:
        GateError: the network is plainly not the one that was trained.
        ExportError: the network has an operator that cannot be quantized.
    """
    recipe = recipe or QuantRecipe()
    with step("Comparing with the training statistics"):
        check_training_match(model, calibration, allow_mismatch=allow_mismatch)
    with step("Folding BatchNorm"):
        folded = fold_all(model)
    calibration, images = (folded_images(each, model.info.input) for each in (calibration, images))
    plan = make_plan(equalize_as(recipe, folded, calibration), calibration, recipe)
    rounded = round_layers(plan, recipe, calibration.images)
    alone = round_layers(plan, recipe, calibration.images, alone=True)
    int8_sqnr_db, layers = measure_layers(plan, rounded, alone, images.images)
    return SensitivityReport(
        network=model.info.name,
        int8_sqnr_db=int8_sqnr_db,
        source=images.source,
        count=images.count,
        calibration_source=calibration.source,
        layers=layers,
    )
