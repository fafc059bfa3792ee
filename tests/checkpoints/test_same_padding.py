"""TensorFlow's padding in artifacts: both exporters accept the explicit pads."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_state import golden_state

from mobiledeploy.network import INPUT_NAME, OUTPUT_NAME
from mobiledeploy.pipeline.build import build
from mobiledeploy.pipeline.deploy import deploy
from mobiledeploy.runtimes.open import open_runner

GOLDEN = Path(__file__).parent / "golden/transformers-mobilenet_v1_0.5.json"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    golden = json.loads(GOLDEN.read_text())
    path = tmp_path_factory.mktemp("weights") / "pytorch_model.bin"
    shapes = {key: tuple(shape) for key, shape in golden["shapes"].items()}
    torch.save(golden_state(shapes, 7), path)
    return build("v1", weights=str(path), resolution=64)


@pytest.mark.ci
def test_a_checkpoint_ported_from_tensorflow_is_exported_with_its_padding(model, tmp_path):
    """At stride 2 on even sides it is asymmetric, which no convolution's `padding` expresses."""
    assert model.info.source["architecture"]["padding"] == "same"
    deployed = deploy(model, formats=("onnx", "pte"), calibration=None, out=tmp_path, parity=False)
    images = np.random.default_rng(0).standard_normal((1, 3, 64, 64), np.float32)
    with torch.no_grad():
        expected = model.module(torch.from_numpy(images)).numpy()
    assert expected.std() > 0.01
    for artifact in deployed.artifacts:
        with open_runner(artifact.path) as runner:
            logits = runner.run({INPUT_NAME: images})[OUTPUT_NAME]
        np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())
