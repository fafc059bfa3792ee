"""Networks of pixels from `build` to parity, in Python and through the command."""

import json
from dataclasses import replace

import networks
import numpy as np
import pytest
import torch
from torch import nn

from mobiledeploy.artifact.manifest import read_manifest
from mobiledeploy.bench.measure import measure
from mobiledeploy.data.pixels import artifact_inputs
from mobiledeploy.errors import DataError, UsageError
from mobiledeploy.models.spec import ModelSpec
from mobiledeploy.models.validate import validate
from mobiledeploy.pipeline.build import build, load_images
from mobiledeploy.pipeline.build_code import from_module
from mobiledeploy.pipeline.check_parity import check_parity
from mobiledeploy.pipeline.deploy import deploy
from mobiledeploy.pipeline.evaluate import evaluate_artifacts
from mobiledeploy.pipeline.sensitivity import measure_sensitivity
from mobiledeploy.runtimes.open import open_runner
from mobiledeploy.stages import RECIPES

SHORT = {"rows": networks.SHORT_ROWS["v2"]}


def built(**fields):
    given = {"width": 0.25, "resolution": 32, "num_classes": 10, "architecture": SHORT} | fields
    return build("v2", weights="random", **given)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The `.onnx` of a network of pixels, calibrated on images that have to be resized."""
    folder = tmp_path_factory.mktemp("pixels")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 48, 48, 3), np.uint8)
    labels = np.arange(20) % 10
    np.savez(folder / "images.npz", images=pixels, labels=labels)
    model = built(input="rgba-u8")
    calibration = load_images(model, folder / "images.npz", for_calibration=True)
    done = deploy(
        model,
        formats=["onnx"],
        calibration=calibration,
        recipe=RECIPES["fast"],
        out=folder,
    )
    done.require_passed()
    return done


def test_the_name_the_manifest_and_the_metadata_say_it(exported):
    path = exported.artifacts[0].path
    assert "-rgba-u8-int8.onnx" in path.name
    manifest = read_manifest(path)
    assert manifest.spec.input == "rgba-u8"
    assert manifest.info.input.artifact_shape == (32, 32, 4)
    with open_runner(path) as runner:
        found = runner.metadata["input"]
    assert found["element"] == "uint8"
    assert found["layout"] == "NHWC"
    assert found["order"] == "RGBA"
    assert found["channels"] == 4
    assert found["folded"]["mean"] == list(manifest.preprocessing.mean)
    assert "mean" not in found  # an app that knows only this name would normalise twice
    text = json.loads(exported.manifests[0].read_text())
    assert text["spec"]["input"] == "rgba-u8"


def test_parity_feeds_pixels_and_every_rung_holds(exported):
    path = exported.artifacts[0].path
    report = check_parity([path], layers=True)
    assert report.passed
    rungs = {rung.name: rung for rung in report.rungs}
    assert rungs["any-rounding"].against("integers").metrics["differing_logits"] == 0
    assert rungs["onnx"].against("integers").metrics["differing_logits"] == 0
    # folding normalises in float32, as the images are: the ladder covers it
    assert rungs["fold"].against("float").metrics["sqnr_db"] > 80
    assert report.layers


def test_arrays_are_refused_for_resizes_before_the_network_is_built(exported, monkeypatch):
    monkeypatch.setattr("mobiledeploy.pipeline.check_parity.rebuild", lambda *_, **__: 1 / 0)
    path = exported.artifacts[0].path
    with pytest.raises(DataError, match=r"images\.npz holds images that are resized already"):
        check_parity([path], resizes=True)
    with pytest.raises(ZeroDivisionError):
        check_parity([path])


def test_the_order_of_the_colours_changes_nothing_else(exported, tmp_path):
    bgra = deploy(
        built(input="bgra-u8"),
        formats=["onnx"],
        calibration=exported_calibration(exported),
        recipe=RECIPES["fast"],
        out=tmp_path,
        parity=False,
    )
    expected, found = (
        run(each.artifacts[0].path, exported_calibration(exported), each.model.info.input)
        for each in (exported, bgra)
    )
    assert np.ptp(expected) > 1
    np.testing.assert_allclose(found, expected, rtol=1e-5)  # the output's scale is a float32


def exported_calibration(exported):
    folder = exported.artifacts[0].path.parent
    return load_images(exported.model, folder / "images.npz", for_calibration=True)


def run(path, images, image):
    with open_runner(path) as runner:
        return runner.run({"input": artifact_inputs(images.images, image)})["logits"]


@pytest.mark.ci
def test_float_and_pixels_are_evaluated_together(exported, tmp_path):
    folder = exported.artifacts[0].path.parent
    planes = deploy(
        built(),
        formats=["onnx"],
        calibration=exported_calibration(exported),
        recipe=RECIPES["fast"],
        out=tmp_path,
        parity=False,
    )
    paths = [exported.artifacts[0].path, planes.artifacts[0].path]
    counted = evaluate_artifacts(paths, folder / "images.npz", with_float=True)
    assert len(counted.networks) == 3


def test_bench_generates_pixels(exported):
    path = exported.artifacts[0].path
    (measured,) = measure([path], runs=3, warmup=1)
    assert min(measured.times_ms) > 0


@pytest.mark.ci
def test_planes_go_through_every_format_parity_and_bench(exported, tmp_path):
    done = deploy(
        built(input="rgb-u8-nchw"),
        formats=["onnx", "pte", "tflite"],
        calibration=exported_calibration(exported),
        recipe=RECIPES["fast"],
        out=tmp_path,
    )
    done.require_passed()
    paths = [artifact.path for artifact in done.artifacts]
    for path in paths:
        assert "-rgb-u8-nchw-int8." in path.name
        manifest = read_manifest(path)
        assert manifest.spec.input == "rgb-u8-nchw"
        with open_runner(path) as runner:
            found = runner.metadata["input"]
            assert runner.input_shape == manifest.info.input.artifact_shape == (3, 32, 32)
        assert (found["layout"], found["order"], found["element"]) == ("NCHW", "RGB", "uint8")
    rungs = {rung.name: rung for rung in done.parity.rungs}
    for name in ("onnx", "pte", "tflite"):
        assert rungs[name].against("integers").metrics["differing_logits"] == 0
    assert min(min(each.times_ms) for each in measure(paths, runs=3, warmup=1)) > 0


def test_sensitivity_measures_layers_on_pixels(exported):
    images = exported_calibration(exported)
    report = measure_sensitivity(built(input="rgba-u8"), images, images, RECIPES["fast"])
    assert report.int8_sqnr_db > 0
    assert report.layers


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"input": "rgba"}, "input is 'rgba'; expected one of float, rgba-u8"),
        ({"input": "gray-u8"}, "gray-u8 does not fit a network with 3 input channels"),
        ({"input": "bgra-u8", "in_channels": 1}, "bgra-u8 does not fit .* 1 input channel"),
    ],
)
def test_invalid_formats_are_refused(fields, message):
    with pytest.raises(UsageError, match=message):
        validate(ModelSpec(family="v2", **fields))


class TwoStems(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(3, 8, 3, 2, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head((self.one(x).relu() + self.two(x).relu()).mean([2, 3]))


@pytest.mark.ci
@pytest.mark.parametrize(
    ("format_", "kept"), [("rgb-u8", ()), ("rgba-u8-nchw", ()), ("rgba-u8-nchw", ("two",))]
)
def test_two_layers_read_the_pixels(tmp_path, format_, kept):
    torch.manual_seed(0)
    model = from_module(TwoStems(), input_shape=(3, 32, 32), input=format_)
    done = deploy(
        model,
        formats=["onnx", "pte", "tflite"],
        calibration=load_images(model, None, 12, for_calibration=True),
        recipe=replace(RECIPES["fast"], float_layers=kept),
        out=tmp_path,
    )
    done.require_passed()


@pytest.mark.ci
@pytest.mark.parametrize("format_", ["rgba-u8", "rgb-u8", "rgb-u8-nchw"])
@pytest.mark.parametrize("kept", ["everything", "features.0.0"])
def test_a_stem_in_float_reads_pixels_too(tmp_path, format_, kept):
    model = built(input=format_)
    calibration = load_images(model, None, 12, for_calibration=True)
    done = deploy(
        model,
        formats=["onnx", "pte", "tflite"],
        calibration=None if kept == "everything" else calibration,
        recipe=replace(RECIPES["fast"], float_layers=(kept,)),
        out=tmp_path,
    )
    done.require_passed()
    for artifact in done.artifacts:
        with open_runner(artifact.path) as runner:
            assert runner.input_type == "uint8"
