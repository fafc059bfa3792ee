"""PT2E keeps a clamp where int8 saturation does not perform it, and removes it elsewhere.

In MobileNetV2 at width 0.25 the first block adds to the output of the stem's ReLU6, so the residual
stream reaches further than the clamp.
"""

from dataclasses import replace

import networks
import numpy as np
import onnx
import pytest
import torch
from torch import nn

from mobiledeploy.export.write import export_executorch, export_onnx
from mobiledeploy.metrics import sqnr_db
from mobiledeploy.quantization.integer_reference import IntegerReference
from mobiledeploy.quantization.ptq import quantize
from mobiledeploy.runtimes.open import open_runner
from mobiledeploy.stages import Encoding

IMAGES = networks.pixels(32)


class ClampedStream(nn.Module):
    """A clamped tensor, an addition to it, and a layer that reads the sum."""

    def __init__(self, activation):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.activation = activation
        self.block = nn.Conv2d(8, 8, 1)
        self.last = nn.Linear(8, networks.CLASSES)
        with torch.no_grad():
            self.stem.weight.mul_(6)  # reaches below 0 and above 6
            self.block.weight.mul_(2)

    def forward(self, x):
        x = self.activation(self.stem(x))
        x = x + self.block(x)
        return self.last(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


@pytest.mark.ci
@pytest.mark.parametrize(
    "activation",
    [
        pytest.param(nn.ReLU(), id="relu", marks=pytest.mark.ci),
        pytest.param(nn.ReLU6(), id="relu6"),
    ],
)
def test_a_clamp_inside_a_residual_stream_is_exact_in_int8(activation, tmp_path):
    torch.manual_seed(0)
    module = ClampedStream(activation).eval()
    model = replace(networks.folded("v1", short=True), module=module)
    network = quantize(model, networks.calibration(32))
    expected = IntegerReference(network).run({"input": IMAGES})["logits"]
    assert sqnr_db(networks.outputs(model, IMAGES), expected) > 30
    for export, name in ((export_onnx, "a.onnx"), (export_executorch, "a.pte")):
        artifact = export(network, tmp_path / name)
        assert artifact.coverage.elements_share == 1.0
        with open_runner(artifact.path) as runner:
            found = [runner.run({"input": image[None]})["logits"] for image in IMAGES]
        assert np.count_nonzero(np.concatenate(found) != expected) == 0, name
    clips = [n for n in onnx.load(tmp_path / "a.onnx").graph.node if n.op_type == "Clip"]
    assert len(clips) == 1


@pytest.mark.ci
def test_v2_at_width_025_is_close_to_float():
    model = networks.equalized("v2")
    found = IntegerReference(networks.quantized("v2")).run({"input": IMAGES})["logits"]
    exact = networks.outputs(model, IMAGES)
    # 15 dB of the whole logits: those of random weights hardly depend on the image
    assert np.square(found - exact).sum() < 10**-1.5 * np.square(exact).sum()


@pytest.mark.parametrize(
    ("zero_point", "clamp", "enforced"),
    [(-128, (0.0, 6.0), True), (-128, (0.0, 5.0), False), (-100, (0.0, 6.0), False)],
)
def test_an_encoding_enforces_the_clamp_at_its_ends(zero_point, clamp, enforced):
    encoding = Encoding(scale=float(np.float32(6 / 255)), zero_point=zero_point)
    assert encoding.enforces(clamp) is enforced
