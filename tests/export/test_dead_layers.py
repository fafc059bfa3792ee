"""Networks with pruned layers or constant outputs export exactly."""

import copy
from dataclasses import replace

import networks
import numpy as np
import pytest
import torch

from mobiledeploy.errors import ExportError
from mobiledeploy.export.write import export_executorch, export_onnx
from mobiledeploy.quantization.equalize import equalize
from mobiledeploy.quantization.integer_reference import IntegerReference
from mobiledeploy.quantization.learned_equalization import learn_equalization
from mobiledeploy.quantization.ptq import quantize
from mobiledeploy.runtimes.open import open_runner

EXPORTERS = {"onnx": export_onnx, "pte": export_executorch}


def with_constant_layers(layers, bias):
    """Return an int8 V3-Small in which these layers output their bias only."""
    model = networks.folded("v3-small", short=True)
    module = copy.deepcopy(model.module)
    silent = [layer for name, layer in module.named_modules() if name.endswith(layers)]
    assert silent
    with torch.no_grad():
        for layer in silent:
            layer.weight.zero_()
            layer.bias.fill_(bias)
    images = networks.calibration(32)
    return quantize(equalize(replace(model, module=module), images), images)


def with_zero_logits(recipe, count):
    """Return an int8 V3-Small whose logits are always zero."""
    model = networks.folded("v3-small", short=True)
    module = copy.deepcopy(model.module)
    classifier = [each for each in module.modules() if isinstance(each, torch.nn.Linear)][-1]
    with torch.no_grad():
        classifier.weight.zero_()
        classifier.bias.zero_()
    images = networks.calibration(32, count)
    learned = learn_equalization(equalize(replace(model, module=module), images), images)
    return quantize(learned, images, networks.recipe_for(learned, recipe))


@pytest.mark.ci
@pytest.mark.parametrize(
    ("recipe", "count"),
    [
        pytest.param("fast", 96, id="enough images to select ranges"),
        pytest.param("best", 12, id="enough images to learn"),
    ],
)
def test_zero_logits_stay_zero(recipe, count):
    """A relative error of 0 / 0 must not raise or make weights NaN."""
    logits = IntegerReference(with_zero_logits(recipe, count)).run({"input": networks.pixels(32)})[
        "logits"
    ]
    np.testing.assert_array_equal(logits, np.zeros_like(logits))


@pytest.fixture(scope="module")
def pruned_and_learned():
    """Return V2 with two pruned channels per linear bottleneck, quantized with `best`."""
    model = networks.folded("v2", short=True)
    module = copy.deepcopy(model.module)
    layers = [each for each in module.modules() if isinstance(each, torch.nn.Conv2d)]
    bottlenecks = [each for each in layers if each.out_channels < each.in_channels]
    assert len(bottlenecks) == 2
    with torch.no_grad():
        for layer in bottlenecks:
            layer.weight[:2] = 0
            layer.bias[:2] = 0
    images = networks.calibration(32, 24)
    equalized = equalize(replace(model, module=module), images)
    return quantize(equalized, images, networks.recipe_for(equalized, "best"))


@pytest.mark.ci
@pytest.mark.parametrize("extension", EXPORTERS)
def test_the_learned_bias_of_a_pruned_channel_fits_into_int32(
    pruned_and_learned, extension, tmp_path
):
    """Adam moves it as far as any other bias, but its scale is 2**-40."""
    assert_exact(pruned_and_learned, tmp_path / f"network.{extension}")


def assert_exact(model, path):
    EXPORTERS[path.suffix[1:]](model, path)
    inputs = {"input": networks.pixels(32, seed=1)}
    with open_runner(path) as runner:
        found = runner.run(inputs)["logits"]
    np.testing.assert_array_equal(found, IntegerReference(model).run(inputs)["logits"])


def with_a_strong_channel(family, factor):
    """Return an int8 network with one channel per convolution multiplied by `factor`."""
    model = networks.folded(family, short=True)
    module = copy.deepcopy(model.module)
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, torch.nn.Conv2d):
                layer.weight[0] *= factor
    images = networks.calibration(32)
    equalized = equalize(replace(model, module=module), images)
    return quantize(equalized, images, networks.recipe_for(equalized, "fast"))


@pytest.mark.ci
def test_a_widened_range_widens_the_next_one(tmp_path):
    """A coarser input scale must not need a larger requantization ratio than XNNPACK takes."""
    assert_exact(with_a_strong_channel("v2", 1000), tmp_path / "network.pte")


def test_layers_that_no_runtime_can_load_are_refused():
    with pytest.raises(ExportError, match=r"features\..*, features\..* cannot be int8") as caught:
        with_a_strong_channel("v3-small", 1000)
    assert "--keep-float features." in caught.value.remedy


PRUNED = ("features.3.block.1.0", -10.0)


@pytest.mark.ci
@pytest.mark.parametrize(
    ("layers", "bias", "extension"),
    [
        pytest.param(
            *(("fc1", "fc2"), -20.0, "onnx"),
            id="closed gates with equal biases",
            marks=pytest.mark.ci,
        ),
        pytest.param(*PRUNED, "onnx", id="pruned block"),
        pytest.param(*PRUNED, "pte", id="pruned block in ExecuTorch", marks=pytest.mark.ci),
        pytest.param(
            *("features.4.0", -10.0, "onnx"),
            id="constant input of the classifier",
            marks=pytest.mark.ci,
        ),
    ],
)
def test_constant_layers_are_exact(layers, bias, extension, tmp_path):
    assert_exact(with_constant_layers(layers, bias), tmp_path / f"network.{extension}")
