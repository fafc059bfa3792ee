"""The stages in order, and the only module that knows them all.

spec ─▶ build ─▶ fold ─▶ equalize ─▶ quantize ─▶ export ─▶ parity
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobiledeploy.graph.fold_batch_norm import fold
from mobiledeploy.network import (
    CalibrationSet,
    FloatModel,
    QuantRecipe,
)
from mobiledeploy.pipeline.build import rescaled
from mobiledeploy.quantization.plan import plan, round_parameters
from mobiledeploy.quantization.sensitivity import SensitivityReport, measure_layers
from mobiledeploy.utils.progress import step
from mobiledeploy.utils.threads import on_one_thread

if TYPE_CHECKING:
    pass


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
    planned = plan(rescaled(folded, calibration, recipe), calibration, recipe)
    rounded = round_parameters(planned, recipe, calibration.images)
    alone = round_parameters(planned, recipe, calibration.images, alone=True)
    int8_sqnr_db, layers = measure_layers(planned, rounded, alone, images.images)
    return SensitivityReport(
        network=model.info.name,
        int8_sqnr_db=int8_sqnr_db,
        source=images.source,
        count=images.count,
        calibration_source=calibration.source,
        layers=layers,
    )
