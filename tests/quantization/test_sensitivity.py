"""The noise of each layer in int8: its measurement and the ranking of layers."""

import functools
import math
from dataclasses import replace

import networks
import numpy as np
import pytest
import torch

from mobiledeploy.errors import DataError
from mobiledeploy.metrics import sqnr_db
from mobiledeploy.models.summary import summarize
from mobiledeploy.network import INPUT_NAME, OUTPUT_NAME
from mobiledeploy.quantization.fake_quantize import FakeQuantizedNetwork, LayerWeights
from mobiledeploy.quantization.integer_reference import IntegerReference
from mobiledeploy.quantization.make_plan import make_plan
from mobiledeploy.quantization.round_layers import round_layers
from mobiledeploy.quantization.sensitivity import LogitNoise, measure_layers, measure_sqnr
from mobiledeploy.stages import QuantRecipe
from mobiledeploy.utils.threads import batch_slices

IMAGES = networks.pixels(32, 4, seed=5)
CALIBRATION = networks.calibration(32)


@functools.cache
def plan(family="v2"):
    return make_plan(networks.equalized(family, short=True), CALIBRATION, QuantRecipe())


@functools.cache
def rounded(family="v2"):
    return round_layers(plan(family), QuantRecipe(), CALIBRATION.images)


def everything():
    return frozenset(op.name for op in plan().ops)


def logits(float_ops=frozenset(), family="v2", images=IMAGES):
    """Return the fake-quantized network's logits, computed at once."""
    mixed = replace(plan(family), float_ops=frozenset(float_ops))
    network = FakeQuantizedNetwork(mixed, rounded(family), keep=True)
    with torch.no_grad():
        return network.values(torch.from_numpy(images))[mixed.ops[-1].output].numpy()


@pytest.mark.ci
@pytest.mark.parametrize("family", ["v1", "v2", "v3-small"])
def test_the_fake_quantized_logits_are_close_to_the_integers(family):
    reference = IntegerReference(networks.quantized(family, short=True))
    expected = reference.run({INPUT_NAME: IMAGES})[OUTPUT_NAME]
    assert sqnr_db(expected, logits(family=family)) > 30


@pytest.mark.parametrize(
    "kept", [("features.0.0",), ("features.2.conv.2", "features.3.conv.2"), ("classifier.1",)]
)
def test_reusing_values_does_not_change_the_noise(kept):
    float_ops = plan().with_float_layers(kept).float_ops
    exact = logits(everything())
    with torch.no_grad():
        found = [
            LogitNoise(plan(), rounded(), torch.from_numpy(IMAGES[i : i + 1])).power(float_ops)
            for i in range(4)
        ]
    expected = np.square(logits(float_ops).astype(float) - exact).sum(axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_one_image_and_copies_of_one_have_no_sqnr():
    for images in (IMAGES[:1], np.repeat(IMAGES[:1], 3, axis=0)):
        with pytest.raises(DataError, match="same for all"):
            measure_sqnr(plan(), rounded(), images, [frozenset()])


def test_every_image_of_every_batch_counts():
    images = networks.pixels(32, 60, seed=5)
    assert len(batch_slices(images, size=1)) == 2
    exact, int8 = logits(everything(), images=images), logits(images=images)
    (found,) = measure_sqnr(plan(), rounded(), images, [frozenset()])
    close = pytest.approx(sqnr_db(exact, int8), abs=0.01)  # sums in another order change codes
    assert found == close
    assert sqnr_db(exact[:49], int8[:49]) != close
    assert sqnr_db(exact[49:], int8[49:]) != close


def test_a_damaged_layer_ranks_first_alone_and_by_its_gain():
    damaged = next(op for op in plan().layers if "features.3.conv.1" in op.layer)
    layer = rounded()[damaged.name]
    weights = {**rounded(), damaged.name: LayerWeights(layer.weight.flip(0), layer.bias)}
    int8_db, layers = measure_layers(plan(), weights, weights, IMAGES)
    healthy_db, healthy = measure_layers(plan(), rounded(), rounded(), IMAGES)
    assert layers[0].name == damaged.layer
    assert healthy[0].gain_db < layers[0].gain_db
    assert int8_db < healthy_db - 3
    assert layers[0].kept_sqnr_db == pytest.approx(int8_db + layers[0].gain_db)
    assert max(layers, key=lambda layer: layer.gain_db) is layers[0]
    alone = [layer.only_sqnr_db for layer in layers]
    assert alone == sorted(alone)


def test_a_layer_alone_is_measured_with_weights_that_are_rounded_alone():
    first = plan().ops[0]
    layer = rounded()[first.name]
    alone = {**rounded(), first.name: LayerWeights(layer.weight, layer.bias + 1)}
    healthy_db, healthy = measure_layers(plan(), rounded(), rounded(), IMAGES)
    int8_db, layers = measure_layers(plan(), rounded(), alone, IMAGES)
    assert int8_db == healthy_db
    before = {layer.name: layer for layer in healthy}
    for layer in layers:
        is_same = layer.name != first.layer
        assert (layer.only_sqnr_db == before[layer.name].only_sqnr_db) is is_same
        assert layer.kept_sqnr_db == before[layer.name].kept_sqnr_db


def test_macs_and_kinds_are_those_of_the_network():
    model = networks.folded("v2", short=True)
    _, layers = measure_layers(plan(), rounded(), rounded(), IMAGES[:2])
    assert sum(layer.macs for layer in layers) == summarize(networks.spec_of(model)).macs
    assert math.isclose(sum(layer.macs_share for layer in layers), 1)
    kinds = {layer.name: layer.kind for layer in layers}
    assert kinds["features.0.0"] == "convolution"
    assert kinds["features.3.conv.1.0"] == "depthwise"
    assert kinds["classifier.1"] == "linear"
