"""A ReLU6 that goes into a residual stream: the stream reaches further, and it must not be lost.

MobileNetV2 at width 0.25 is such a network: its first block adds to what the stem puts out.
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
from mobiledeploy.models.spec import FAMILIES
from mobiledeploy.network import Encoding, QuantRecipe
from mobiledeploy.quantization.encodings import encode_around
from mobiledeploy.quantization.fake_quantize import FakeQuantizedNetwork
from mobiledeploy.quantization.integer_reference import IntegerReference
from mobiledeploy.quantization.plan import plan, round_parameters
from mobiledeploy.quantization.ptq import quantize
from mobiledeploy.runtimes.open import open_runner

IMAGES = networks.pixels(32)


class Stream(nn.Module):
    """A clamped tensor, what is added to it, and a reader of the sum."""

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


def folded(activation):
    torch.manual_seed(0)
    return replace(networks.folded("v1", short=True), module=Stream(activation).eval())


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU6()], ids=["relu", "relu6"])
def test_a_clamp_inside_a_stream_is_computed_and_in_integers(activation, tmp_path):
    model = folded(activation)
    network = quantize(model, networks.calibration(32))
    expected = IntegerReference(network).run({"input": IMAGES})["logits"]
    assert sqnr_db(networks.outputs(model, IMAGES), expected) > 30
    for export, name in ((export_onnx, "a.onnx"), (export_executorch, "a.pte")):
        artifact = export(network, tmp_path / name)
        assert artifact.coverage.elements_share == 1.0
        with open_runner(artifact.path) as runner:
            got = [runner.run({"input": image[None]})["logits"] for image in IMAGES]
        assert np.count_nonzero(np.concatenate(got) != expected) == 0, name
    clips = [n for n in onnx.load(tmp_path / "a.onnx").graph.node if n.op_type == "Clip"]
    assert len(clips) == 1


def test_v2_at_a_quarter_of_its_width_survives_int8():
    model = networks.equalized("v2")
    reference = IntegerReference(networks.quantized("v2"))
    got = reference.run({"input": IMAGES})["logits"]
    assert sqnr_db(networks.outputs(model, IMAGES), got) > 15


@pytest.mark.parametrize("family", FAMILIES)
def test_the_integers_are_the_network_that_was_simulated(family):
    """Which computes every activation in float: a lost one shows, whatever weights do."""
    model, images = networks.equalized(family), networks.calibration(32)
    recipe = QuantRecipe(range_rule="minmax", rounding="nearest")
    planned = plan(model, images, recipe)
    rounded = round_parameters(planned, recipe, images.images)
    simulation = FakeQuantizedNetwork(planned.traced, planned.ops, planned.encodings, rounded)
    with torch.no_grad():
        expected = simulation.run(torch.from_numpy(IMAGES)).numpy()
    got = IntegerReference(quantize(model, images, recipe)).run({"input": IMAGES})["logits"]
    assert sqnr_db(expected, got) > 28  # codes next to half-way may differ


def test_six_is_not_half_way_between_two_codes():
    unlucky = [6 * 255 / (code + 0.5) - 2 for code in range(150, 180)]
    for high in unlucky:
        steps = 6 / encode_around(-2.0, high, [0.0, 6.0]).scale
        assert abs(steps - np.floor(steps) - 0.5) > 1e-3
    assert encode_around(0.0, 6.0, [0.0, 6.0]) == encode_around(0.0, 6.0, [])


@pytest.mark.parametrize(
    ("zero_point", "clamp", "performed"),
    [(-128, (0.0, 6.0), True), (-128, (0.0, 5.0), False), (-100, (0.0, 6.0), False)],
)
def test_an_encoding_performs_the_clamps_at_its_ends(zero_point, clamp, performed):
    encoding = Encoding(scale=float(np.float32(6 / 255)), zero_point=zero_point)
    assert encoding.enforces(clamp) is performed
