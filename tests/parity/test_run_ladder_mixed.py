"""The ladder of a network with layers in float: its logits need not be equal."""

from dataclasses import replace

import networks
import numpy as np
import pytest

from mobiledeploy.export.write import export_onnx
from mobiledeploy.parity.run_ladder import run_ladder
from mobiledeploy.parity.tolerances import default_tolerances
from mobiledeploy.quantization.ptq import quantize
from mobiledeploy.stages import CalibrationSet, FloatModel, Stages

KEPT = ("features.0.0", "features.2.conv.2", "features.3.conv.2", "classifier.1")
LOOSE = replace(
    default_tolerances(networks.folded("v2", short=True).info),
    min_sqnr_db=0,
    min_top1_agreement=0,
    min_equalized_sqnr_db=0,
)


@pytest.fixture(scope="module")
def stages():
    folded = networks.folded("v2", short=True)
    equalized = networks.equalized("v2", short=True)
    calibration = networks.calibration(32)
    recipe = networks.recipe_for(equalized, range_rule="minmax", float_layers=KEPT)
    trained = replace(folded.info.provenance, source="file")
    original = FloatModel(info=replace(folded.info, provenance=trained), module=folded.module)
    return Stages(
        original=original,
        folded=folded,
        equalized=equalized,
        deployed=quantize(equalized, calibration, recipe),
        calibration=calibration,
    )


@pytest.fixture(scope="module")
def artifact(stages, tmp_path_factory):
    return export_onnx(stages.deployed, tmp_path_factory.mktemp("mixed") / "mixed.onnx").path


def ladder_of(stages, artifact, tolerances=LOOSE, **options):
    batch = networks.pixels(32, count=6, seed=7)
    images = CalibrationSet(images=batch, source="others", sha256="c0ffee")
    return run_ladder(stages, [artifact], images, tolerances=tolerances, **options)


@pytest.mark.ci
def test_every_rung_passes_and_the_limit_is_stated(stages, artifact):
    report = ladder_of(stages, artifact, layers=True)
    assert report.passed, [rung.failures for rung in report.rungs]
    rung = next(rung for rung in report.rungs if rung.name == "onnx")
    contract = rung.against("integers")
    assert contract.limits == {"min_sqnr_db": LOOSE.min_mixed_sqnr_db}
    assert contract.metrics["differing_logits"] > 0  # float logits are rounded differently
    assert contract.metrics["sqnr_db"] > 100
    assert any("conv2d_1" in layer.name for layer in report.layers)


def test_the_loss_of_the_artifact_itself_is_limited(stages, artifact):
    """It need not equal the integer reference, so the limits apply to what ships."""
    strict = replace(LOOSE, min_sqnr_db=60)
    report = ladder_of(stages, artifact, quick=True, tolerances=strict)
    assert [rung.name for rung in report.rungs if not rung.passed] == ["integers", "onnx"]


@pytest.mark.ci
def test_an_artifact_whose_kept_layers_are_int8_after_all_fails(stages, tmp_path):
    recipe = networks.recipe_for(stages.equalized, range_rule="minmax")
    int8 = quantize(stages.equalized, stages.calibration, recipe)
    other = export_onnx(int8, tmp_path / "int8.onnx").path
    report = ladder_of(stages, other, quick=True)
    assert not report.passed
    assert [rung.name for rung in report.rungs if not rung.passed] == ["onnx"]


def test_one_wrong_weight_fails(stages, artifact, tmp_path):
    import onnx
    from onnx import numpy_helper

    model = onnx.load(artifact)
    weights = next(t for t in model.graph.initializer if t.name.startswith("features.0.0.weight"))
    array = numpy_helper.to_array(weights).copy()
    array[0, 0, 1, 1] += 0.02 * np.abs(array).max()
    weights.CopyFrom(numpy_helper.from_array(array, weights.name))
    path = tmp_path / "other.onnx"
    onnx.save(model, path)
    report = ladder_of(stages, path, quick=True)
    (rung,) = [rung for rung in report.rungs if not rung.passed]
    assert rung.name == "onnx"
    assert rung.first_differing_layer == "features.0.0 conv2d"
