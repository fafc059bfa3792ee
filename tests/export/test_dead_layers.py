"""Networks that have been pruned, or whose gates are shut, export as others do."""

import copy
from dataclasses import replace

import networks
import numpy as np
import pytest
import torch

from mobiledeploy.equalize import equalize
from mobiledeploy.export import export_executorch, export_onnx
from mobiledeploy.quantize import quantize
from mobiledeploy.quantize.reference import IntegerReference
from mobiledeploy.runtimes import open_runner

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
    model = silenced(layers, bias)
    path = tmp_path / f"network.{extension}"
    EXPORTERS[extension](model, path)
    inputs = {"input": networks.pixels(32, seed=1)}
    with open_runner(path) as runner:
        found = runner.run(inputs)["logits"]
    np.testing.assert_array_equal(found, IntegerReference(model).run(inputs)["logits"])
