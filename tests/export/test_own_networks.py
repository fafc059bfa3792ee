"""Networks of users: every format computes the integers of the reference, all in int8."""

import networks
import numpy as np
import own_networks
import pytest

from mobiledeploy.export.write import export_executorch, export_onnx, export_tflite
from mobiledeploy.graph.fold_graph import fold_graph
from mobiledeploy.models.initialize import initialize, randomize_batch_norm
from mobiledeploy.quantization.equalize import equalize
from mobiledeploy.quantization.integer_reference import IntegerReference
from mobiledeploy.quantization.ptq import quantize
from mobiledeploy.runtimes.open import open_runner

pytestmark = pytest.mark.ci


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(own_networks.Tutorial, marks=pytest.mark.ci),
        own_networks.Gates,
        own_networks.Pools,
        own_networks.Bounds,
        own_networks.Shuffled,
        own_networks.Upsampled,
        own_networks.Arithmetic,
    ],
)
def test_a_network_of_users_is_exact_and_int8_in_all_formats(network, tmp_path):
    module = network().eval()
    initialize(module, seed=1)
    randomize_batch_norm(module, seed=1)
    calibration = networks.calibration(32)
    model = equalize(fold_graph(networks.model_of(module)), calibration)
    int8 = quantize(model, calibration)
    images = networks.pixels(32, count=16, seed=1)
    expected = IntegerReference(int8).run({"input": images})["logits"]
    assert len(np.unique(expected, axis=0)) > 10
    exact = networks.outputs(model, images)
    noise = np.abs(expected - exact).mean() / np.abs(exact - exact.mean(0)).mean()
    assert noise < 0.3
    for export, name in (
        (export_onnx, "net.onnx"),
        (export_executorch, "net.pte"),
        (export_tflite, "net.tflite"),
    ):
        artifact = export(int8, tmp_path / name)
        with open_runner(artifact.path) as runner:
            found = runner.run({"input": images})["logits"]
        assert np.count_nonzero(found != expected) == 0, name
        assert artifact.coverage.elements_share == 1, name
