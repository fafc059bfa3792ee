"""The Python API with arguments as people write them: strings for paths, and the usual mistakes."""

from types import SimpleNamespace

import networks
import pytest
from PIL import Image
from torch import nn

import mobiledeploy
from mobiledeploy.errors import DataError, UsageError

SMALL = {"weights": "random", "width": 0.25, "resolution": 32, "num_classes": 10}


@pytest.fixture(scope="module")
def model():
    return mobiledeploy.build("v2", **SMALL)


@pytest.fixture(scope="module")
def given(model):
    images = mobiledeploy.load_images(model, None, 4)
    return SimpleNamespace(float=model, images=images, folded=mobiledeploy.fold(model))


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for index, pixels in enumerate(networks.pixels(32, count=8, seed=1)):
        array = (pixels - pixels.min()) / (pixels.max() - pixels.min()) * 255
        Image.fromarray(array.transpose(1, 2, 0).astype("uint8")).save(folder / f"{index}.png")
    return str(folder)


@pytest.mark.ci
def test_strings_are_paths_from_the_photos_to_the_measurement(model, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = mobiledeploy.deploy(
        model, formats="onnx", calibration=photos, recipe="fast", out="exports", parity=False
    )
    [artifact] = done.artifacts
    assert str(artifact.path).startswith("exports/")
    assert done.model.calibration_count == 8
    report = mobiledeploy.check_parity(str(artifact.path), photos, samples=8)
    assert report.passed
    (tmp_path / "report.json").write_text(report.model_dump_json())
    again = mobiledeploy.check_parity(
        [str(artifact.path)], photos, samples=8, baseline="report.json", calib_data=photos
    )
    assert again.regressions == ()
    [measured] = mobiledeploy.measure(str(artifact.path), runs=2, warmup=1)
    assert measured.artifact == str(artifact.path)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: mobiledeploy.quantize(g.float, g.images), "FloatModel; expected FoldedModel"),
        (lambda g: mobiledeploy.equalize(g.float, g.images), "FloatModel; expected FoldedModel"),
        (lambda g: mobiledeploy.learn_equalization(g.float, g.images), "expected FoldedModel"),
        (lambda g: mobiledeploy.quantize(g.folded, "photos"), "str; expected CalibrationSet"),
        (lambda g: mobiledeploy.quantize(g.folded, None), "NoneType; expected CalibrationSet"),
        (lambda g: mobiledeploy.quantize(g.folded, g.images, "quick"), "no recipe 'quick'"),
        (lambda g: mobiledeploy.fold(g.folded), "FoldedModel; expected FloatModel"),
        (lambda g: mobiledeploy.fold(g.float.module), "expected FloatModel"),
        (lambda g: mobiledeploy.load_images(g.float.module, None), "expected FloatModel or"),
        (lambda g: mobiledeploy.export_onnx(g.float, "a.onnx"), "expected FoldedModel or"),
        (lambda g: mobiledeploy.export_onnx(g.folded, "a.pte"), r"ends in '.pte'; expected .onnx"),
        (lambda g: mobiledeploy.export_executorch(g.folded, "a"), "'no suffix'; expected .pte"),
        (lambda g: mobiledeploy.export_tflite(g.folded, "a.lite"), "expected .tflite"),
        (
            lambda g: mobiledeploy.deploy(g.float.module, calibration=g.images),
            "expected FloatModel",
        ),
        (
            lambda g: mobiledeploy.deploy(g.float, calibration=g.images, formats="pt"),
            "no format 'pt'",
        ),
        (
            lambda g: mobiledeploy.deploy(g.float, calibration=g.images, recipe="4bit"),
            "no recipe '4bit'",
        ),
        (lambda g: mobiledeploy.deploy(g.float, calibration=g.images, out=3), "out is 3"),
        (lambda _: mobiledeploy.measure("a.onnx", device="adb://"), "device is 'adb://'"),
        (lambda _: mobiledeploy.check_parity("a.onnx", device="adb://"), "device is 'adb"),
        (lambda g: mobiledeploy.build(g.float.module), "expected str"),
        (lambda _: mobiledeploy.build("v2", widht=1), "ModelSpec has no field widht"),
        (lambda _: mobiledeploy.build("v2", architecture={"a": 1}), "architecture has no"),
        (lambda _: mobiledeploy.build("v2", **SMALL, preprocessing="imagenet"), "a dict"),
        (lambda _: mobiledeploy.build("v2", **SMALL, preprocessing={"mena": 1}), "mena"),
        (lambda _: mobiledeploy.from_module("net.py:create"), "str; expected Module"),
        (lambda _: mobiledeploy.from_module(nn.Identity(), input_shape=224), "(C, H, W)"),
    ],
)
def test_the_usual_mistakes_are_named(given, call, message):
    with pytest.raises(UsageError) as caught:
        call(given)
    assert message in str(caught.value)


def test_labels_of_a_module_may_be_a_file(tmp_path):
    module = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    for labels in (str(tmp_path / "names.txt"), ["cat", "dog"]):
        built = mobiledeploy.from_module(module, input_shape=(3, 32, 32), labels=labels)
        assert built.info.labels == ("cat", "dog")
    with pytest.raises(DataError, match="nothere"):
        mobiledeploy.from_module(module, input_shape=(3, 32, 32), labels="nothere.txt")
