"""Faults planted in every stage are found at the rung where they were planted."""

import copy
import sys
from dataclasses import replace

import networks
import numpy as np
import onnx
import planted
import pytest
import torch
from onnx import numpy_helper

from mobiledeploy.devices.open import open_device, run_artifact
from mobiledeploy.errors import RuntimeFailedError
from mobiledeploy.export.write import export_onnx
from mobiledeploy.network import WeightsProvenance
from mobiledeploy.parity.run_ladder import run_ladder
from mobiledeploy.parity.tolerances import default_tolerances
from mobiledeploy.quantization.integer_operators import unrounded
from mobiledeploy.stages import CalibrationSet, FloatModel, Stages
from mobiledeploy.utils.quiet import quietly

RANDOM = WeightsProvenance(source="random", origin="seed 0")
LOOSE = replace(
    default_tolerances(networks.folded("v2", short=True).info),
    min_sqnr_db=0,
    min_top1_agreement=0,
    min_equalized_sqnr_db=0,
)


def images(resolution=32, count=6):
    batch = networks.pixels(resolution, count=count, seed=7)
    return CalibrationSet(images=batch, source="others", sha256="0ther")


def stages(family="v2", resolution=32, **replaced):
    """Return a small network after each stage; its weights count as trained: limits apply."""
    folded = networks.folded(family, resolution, short=True)
    trained = replace(folded.info.provenance, source="file")
    original = FloatModel(info=replace(folded.info, provenance=trained), module=folded.module)
    given = {
        "original": original,
        "folded": folded,
        "equalized": networks.equalized(family, resolution, short=True),
        "deployed": networks.quantized(family, resolution, short=True),
        "calibration": networks.calibration(resolution),
    }
    return Stages(**(given | replaced))


def failed(report):
    return [rung.name for rung in report.rungs if not rung.passed]


def rung(report, name):
    return next(rung for rung in report.rungs if rung.name == name)


@pytest.fixture(scope="module")
def onnx_path(exported_to):
    return exported_to("onnx", "v2").path


def test_the_whole_ladder_passes_rung_by_rung(exported_to, onnx_path):
    artifacts = [exported_to("pte", "v2").path, onnx_path]
    report = run_ladder(stages(), artifacts, images(), tolerances=LOOSE)
    assert report.passed, [rung.failures for rung in report.rungs]
    names = [
        *("float", "fold", "equalize", "integers", "any-rounding"),
        *("onnx-unoptimized", "onnx", "pte"),
    ]
    assert [rung.name for rung in report.rungs] == names
    below = dict(zip(names[1:], names, strict=False)) | {"onnx-unoptimized": "integers"}
    for name in names[1:]:
        assert rung(report, name).against(below[name]), f"{name} is not compared"
    for name in names[4:]:
        metrics = rung(report, name).against("integers").metrics
        assert (metrics["differing_logits"], metrics["logits"]) == (0, 60)
    assert report.data.count == 6
    assert not report.data.calibration
    assert all(rung.seconds > 0 for rung in report.rungs)


def test_a_network_with_ties_fails_at_any_rounding(monkeypatch, onnx_path):
    """The integers of a network without ties are found to differ from a planted mode."""
    monkeypatch.setattr(
        "mobiledeploy.quantization.rounding_modes.MODES",
        {"down": lambda value, step: unrounded(value, step).double().floor()},
    )
    report = run_ladder(stages(), [onnx_path], images(), tolerances=LOOSE)
    assert failed(report) == ["any-rounding"]
    (failure,) = rung(report, "any-rounding").failures
    assert failure.startswith("Rounded by down, ")
    assert failure.endswith(" layers differ).")


def test_the_quick_ladder_leaves_out_rungs_that_only_locate_a_loss(onnx_path):
    report = run_ladder(stages(), [onnx_path], images(), tolerances=LOOSE, quick=True)
    assert [rung.name for rung in report.rungs] == ["float", "integers", "onnx"]
    assert report.passed


def disturbed(model, *, by=1e-3, layer=1):
    """Return a copy of a stage whose convolution number `layer` has its weights scaled."""
    with quietly():  # copying a graph warns about torch's own pytree
        module = copy.deepcopy(model.module)
    weight = [p for p in module.parameters() if p.dim() == 4][layer]
    with torch.no_grad():
        weight.mul_(1 + by)
    return replace(model, module=module)


@pytest.mark.parametrize("stage", ["folded", "equalized"])
def test_a_perturbed_weight_in_a_stage_is_found_at_its_rung(onnx_path, stage):
    good = stages()
    spoiled = replace(good, **{stage: disturbed(getattr(good, stage))})
    report = run_ladder(spoiled, [onnx_path], images(), tolerances=LOOSE)
    names = {"folded": "fold", "equalized": "equalize"}
    assert report.first_failed_rung.name == names[stage]
    assert "SQNR is" in report.first_failed_rung.failures[0]


def test_an_int8_network_that_lost_too_much_is_found_at_the_integers(onnx_path):
    strict = replace(LOOSE, min_sqnr_db=90)
    report = run_ladder(stages(), [onnx_path], images(), tolerances=strict)
    assert failed(report) == ["integers"]  # the artifact is them


@pytest.mark.parametrize(
    ("fault", "layer"),
    [
        (planted.perturbed_weight(0), "features.0.0 conv2d"),
        (planted.perturbed_weight(4), "features.2.conv.1.0 conv2d_4"),
        (planted.perturbed_weight(-1, count=None), "classifier.1 linear"),
        (planted.shifted_zero_point(3), "features.1.conv.1 conv2d_2"),
        (planted.swapped_channels(3), "features.2.conv.0.0 conv2d_3"),
        (planted.takes_bgr, "features.0.0 conv2d"),
    ],
    ids=["first-weight", "inner-weight", "last-weight", "zero-point", "channels", "bgr"],
)
def test_a_fault_in_the_onnx_is_found_at_its_first_rung_and_layer(
    onnx_path, tmp_path, fault, layer
):
    path = planted.plant(onnx_path, tmp_path / "spoiled.onnx", fault)
    report = run_ladder(stages(), [path], images(), tolerances=LOOSE)
    assert report.first_failed_rung.name == "onnx-unoptimized"
    assert report.first_failed_rung.first_differing_layer == layer
    assert (
        f"differs from the integer reference is {layer}: " in report.first_failed_rung.failures[0]
    )
    assert failed(report)[0] == "onnx-unoptimized"


def test_a_fault_that_changes_logits_fails_the_optimized_rung_as_well(onnx_path, tmp_path):
    path = planted.plant(onnx_path, tmp_path / "spoiled.onnx", planted.swapped_channels(3))
    report = run_ladder(stages(), [path], images(), tolerances=LOOSE)
    assert failed(report) == ["onnx-unoptimized", "onnx"]
    assert rung(report, "onnx").first_differing_layer == "features.2.conv.0.0 conv2d_3"
    assert "logits differ from integer reference" in " ".join(rung(report, "onnx").failures)


def test_an_artifact_that_takes_bgr_is_reported_as_such(onnx_path, tmp_path):
    path = planted.plant(onnx_path, tmp_path / "bgr.onnx", planted.takes_bgr)
    report = run_ladder(stages(), [path], images(), tolerances=LOOSE)
    assert "it takes BGR" in " ".join(rung(report, "onnx").failures)


def test_nan_from_an_artifact_fails_at_its_rung(onnx_path, tmp_path):
    path = planted.plant(onnx_path, tmp_path / "nan.onnx", planted.not_a_number)
    report = run_ladder(stages(), [path], images(), tolerances=LOOSE)
    assert failed(report) == ["onnx-unoptimized", "onnx"]
    assert report.first_failed_rung.failures == ("60 of 60 logits are NaN or infinite.",)


def test_nan_from_float_fails_at_float(onnx_path):
    good = stages()
    module = copy.deepcopy(good.original.module)
    with torch.no_grad():
        next(module.parameters()).fill_(float("nan"))
    spoiled = replace(good, original=replace(good.original, module=module))
    report = run_ladder(spoiled, [onnx_path], images(), tolerances=LOOSE)
    assert report.first_failed_rung.name == "float"
    assert report.first_failed_rung.failures == ("60 of 60 logits are NaN or infinite.",)


@pytest.mark.ci
def test_the_onnx_of_another_model_fails_at_its_first_rung(exported_to):
    report = run_ladder(stages(), [exported_to("onnx", "v1").path], images(), tolerances=LOOSE)
    assert report.first_failed_rung.name == "onnx-unoptimized"
    other = run_ladder(
        stages(), [exported_to("onnx", "v3-small", 64).path], images(), tolerances=LOOSE
    )
    assert "it holds another network" in other.first_failed_rung.failures[0]


@pytest.mark.ci
def test_the_pte_of_another_network_fails_at_its_rung(exported_to, onnx_path):
    artifacts = [onnx_path, exported_to("pte", "v1").path]
    report = run_ladder(stages(), artifacts, images(), tolerances=LOOSE)
    assert failed(report) == ["pte"]


def test_weights_that_are_off_by_one_in_the_pte_fail_at_its_rung(exported_to, onnx_path, tmp_path):
    """The file holds the weights as ONNX does: each of one layer is changed by one code."""
    pte = exported_to("pte", "v2").path
    stored = numpy_helper.to_array(planted.weights(onnx.load(onnx_path), -1)).tobytes()
    data = pte.read_bytes()
    assert data.count(stored) == 1
    path = tmp_path / pte.name
    path.write_bytes(data.replace(stored, planted.off_by_one(stored)))
    report = run_ladder(stages(), [onnx_path, path], images(), tolerances=LOOSE)
    assert failed(report) == ["pte"]
    assert "logits differ from integer reference" in " ".join(report.first_failed_rung.failures)


@pytest.mark.ci
def test_a_float_network_may_differ_by_float_rounding_only(exported_to):
    folded = networks.folded("v2", short=True)
    float_stages = stages(equalized=None, deployed=folded, calibration=None)
    artifacts = [exported_to(f, "v2", precision="fp32").path for f in ("onnx", "pte")]
    report = run_ladder(float_stages, artifacts, images())
    assert report.passed, [rung.failures for rung in report.rungs]
    names = ["float", "fold", "onnx-unoptimized", "onnx", "pte"]
    assert [rung.name for rung in report.rungs] == names
    assert report.precision == "fp32"
    other = stages(equalized=None, deployed=disturbed(folded), calibration=None)
    assert (
        failed(run_ladder(replace(other, folded=other.deployed), artifacts, images()))[0] == "fold"
    )


def demanding(**limits):
    """Return loose limits, and these as the user's."""
    return replace(LOOSE, demanded=limits, **limits)


@pytest.mark.parametrize("limits", [{"min_sqnr_db": 500}, {"min_top1_agreement": 1.01}])
def test_requested_limits_apply_to_float_artifacts(exported_to, limits):
    folded = networks.folded("v2", short=True)
    float_stages = stages(equalized=None, deployed=folded, calibration=None)
    artifact = exported_to("onnx", "v2", precision="fp32").path
    report = run_ladder(float_stages, [artifact], images(), tolerances=demanding(**limits))
    assert failed(report) == ["onnx"]


def test_requested_limits_apply_to_random_weights(onnx_path):
    random = stages(original=networks.described(stages().original, provenance=RANDOM))
    assert run_ladder(random, [onnx_path], images(), tolerances=LOOSE).passed
    report = run_ladder(random, [onnx_path], images(), tolerances=demanding(min_sqnr_db=90))
    assert failed(report) == ["onnx"]


WRONG_RUNTIME = """
import onnxruntime

_run = onnxruntime.InferenceSession.run


def run(self, *arguments, **options):
    logits, *others = _run(self, *arguments, **options)
    logits[0, 0] += 1
    return [logits, *others]


onnxruntime.InferenceSession.run = run
"""


def on(command):
    """Return a function that runs artifacts with another Python, as `--device exec:` does."""

    def run(path, batch):
        with open_device(f"exec:{command}") as device:
            return run_artifact(device, path, batch)

    return run


def test_the_device_is_the_last_rung(exported_to, onnx_path):
    artifacts = [onnx_path, exported_to("pte", "v2").path]
    device = on(sys.executable)
    report = run_ladder(stages(), artifacts, images(), tolerances=LOOSE, on_device=device)
    assert report.passed, [rung.failures for rung in report.rungs]
    for last, path in zip(report.rungs[-2:], artifacts, strict=True):
        assert (last.name, last.artifact) == ("device", path.name)
        host = path.suffix.removeprefix(".")
        assert [c.reference for c in last.comparisons] == [host, "integers", "float"]
        assert [c.metrics["differing_logits"] for c in last.comparisons[:2]] == [0, 0]


@pytest.mark.ci
@pytest.mark.parametrize("answer", ["codes", "top5"])
def test_a_device_returns_codes_and_classes(answer, tmp_path):
    usual = stages()
    (output,) = usual.deployed.info.outputs
    given = (output.with_activation(answer),)
    answering = stages(
        original=replace(usual.original, info=replace(usual.original.info, outputs=given)),
        deployed=replace(usual.deployed, info=replace(usual.deployed.info, outputs=given)),
    )
    path = export_onnx(answering.deployed, tmp_path / "net.onnx").path
    device = on(sys.executable)
    report = run_ladder(answering, [path], images(), tolerances=LOOSE, on_device=device)
    assert report.passed, [rung.failures for rung in report.rungs]
    last = report.rungs[-1]
    assert last.name == "device"
    assert [c.reference for c in last.comparisons][:2] == ["onnx", "integers"]
    assert last.comparisons[0].metrics["differing_logits"] == 0


def test_a_device_without_the_tensors_of_the_metadata_is_refused(onnx_path):
    def nothing(_path, _inputs):
        return ()

    with pytest.raises(RuntimeFailedError, match="returned nothing, which is not what"):
        run_ladder(stages(), [onnx_path], images(), tolerances=LOOSE, on_device=nothing)


def test_a_device_that_computes_something_else_fails_at_its_rung(onnx_path, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(WRONG_RUNTIME)
    wrong = on(f"env PYTHONPATH={tmp_path} {sys.executable}")
    report = run_ladder(stages(), [onnx_path], images(), tolerances=LOOSE, on_device=wrong)
    assert failed(report) == ["device"]
    assert "logits differ from ONNX Runtime" in report.first_failed_rung.failures[0]


def test_a_device_that_cannot_run_the_artifact_is_an_error(onnx_path):
    bare = on(f"{sys.executable} -S")  # no site-packages
    with pytest.raises(RuntimeFailedError, match="onnxruntime"):
        run_ladder(stages(), [onnx_path], images(), tolerances=LOOSE, on_device=bare, quick=True)


def test_images_whose_channels_are_reversed_fail_at_float(onnx_path):
    """A network whose logits grow with red gets blue images."""

    class Red(torch.nn.Module):
        def forward(self, x):
            redness = x[:, 0].mean((1, 2))
            return torch.stack([redness * 3, *[torch.zeros_like(redness)] * 9], dim=1)

    red = np.random.default_rng(0).uniform(0, 0.2, (24, 3, 32, 32)).astype(np.float32)
    red[:, 0] += 1
    good = stages()
    network = replace(good, original=replace(good.original, module=Red()))
    for channels, looks_reversed in ((red, False), (red[:, ::-1].copy(), True)):
        data = CalibrationSet(images=channels, source="red", sha256="")
        failures = run_ladder(network, [onnx_path], data, tolerances=LOOSE).rungs[0].failures
        assert any("look like BGR" in text for text in failures) == looks_reversed
