"""Networks that have been pruned, or whose gates are shut, export as others do."""

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


def silenced(layers, bias):
    """Return an int8 V3-Small of which these layers put out their bias alone."""
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


def mute(recipe, count):
    """Return an int8 V3-Small of which every logit is zero, whatever it sees."""
    model = networks.folded("v3-small", short=True)
    module = copy.deepcopy(model.module)
    classifier = [each for each in module.modules() if isinstance(each, torch.nn.Linear)][-1]
    with torch.no_grad():
        classifier.weight.zero_()
        classifier.bias.zero_()
    images = networks.calibration(32, count)
    learned = learn_equalization(equalize(replace(model, module=module), images), images)
    return quantize(learned, images, networks.recipe_for(learned, recipe))


@pytest.mark.parametrize(
    ("recipe", "count"),
    [
        pytest.param("fast", 96, id="as many images as it takes to judge ranges"),
        pytest.param("best", 12, id="as few as it takes to learn"),
    ],
)
def test_logits_that_are_always_zero_stay_so(recipe, count):
    """There is nothing to be near to: 0 / 0 was an error, or NaN in every weight."""
    logits = IntegerReference(mute(recipe, count)).run({"input": networks.pixels(32)})["logits"]
    np.testing.assert_array_equal(logits, np.zeros_like(logits))


@pytest.fixture(scope="module")
def pruned_and_learned():
    """Return V2 with two channels of each linear bottleneck gone, quantized by `best`."""
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


@pytest.mark.parametrize("extension", EXPORTERS)
def test_what_is_learned_of_a_dead_channel_fits_into_int32(pruned_and_learned, extension, tmp_path):
    """Adam moves its bias as far as any other's, and its grid is 2**-40 wide."""
    assert_exact(pruned_and_learned, tmp_path / f"network.{extension}")


def assert_exact(model, path):
    EXPORTERS[path.suffix[1:]](model, path)
    inputs = {"input": networks.pixels(32, seed=1)}
    with open_runner(path) as runner:
        found = runner.run(inputs)["logits"]
    np.testing.assert_array_equal(found, IntegerReference(model).run(inputs)["logits"])


def with_a_strong_channel(family, factor):
    """Return an int8 network of which each convolution has one channel `factor` times as strong."""
    model = networks.folded(family, short=True)
    module = copy.deepcopy(model.module)
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, torch.nn.Conv2d):
                layer.weight[0] *= factor
    images = networks.calibration(32)
    equalized = equalize(replace(model, module=module), images)
    return quantize(equalized, images, networks.recipe_for(equalized, "fast"))


def test_a_range_that_is_widened_widens_the_next(tmp_path):
    """Read at a coarser scale, it asked for more of the next output than XNNPACK takes."""
    assert_exact(with_a_strong_channel("v2", 1000), tmp_path / "network.pte")


def test_what_no_runtime_loads_is_not_exported():
    with pytest.raises(ExportError, match=r"features\..*, features\..* cannot be int8") as caught:
        with_a_strong_channel("v3-small", 1000)
    assert "--keep-float features." in caught.value.remedy


PRUNED = ("features.3.block.1.0", -10.0)


@pytest.mark.parametrize(
    ("layers", "bias", "extension"),
    [
        pytest.param(("fc1", "fc2"), -20.0, "onnx", id="shut gates: equal biases, no products"),
        pytest.param(*PRUNED, "onnx", id="a pruned block: means of nothing"),
        pytest.param(*PRUNED, "pte", id="the same in ExecuTorch"),
        pytest.param("features.4.0", -10.0, "onnx", id="nothing in front of the classifier"),
    ],
)
def test_what_is_dead_stays_exact(layers, bias, extension, tmp_path):
    assert_exact(silenced(layers, bias), tmp_path / f"network.{extension}")
