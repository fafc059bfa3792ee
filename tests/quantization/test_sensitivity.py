"""What each layer's int8 costs: the simulation, and the ranking that it gives."""

import functools
import math

import networks
import numpy as np
import pytest
import torch

from mobiledeploy.metrics import sqnr_db
from mobiledeploy.models.summary import summarize
from mobiledeploy.network import INPUT_NAME, OUTPUT_NAME, QuantRecipe
from mobiledeploy.quantization.fake_quantize import FakeQuantizedNetwork, Rounded
from mobiledeploy.quantization.float_layers import float_ops, layer_name
from mobiledeploy.quantization.integer_reference import IntegerReference
from mobiledeploy.quantization.plan import plan, round_parameters
from mobiledeploy.quantization.sensitivity import Noise, measure_layers, sqnrs_db
from mobiledeploy.utils.threads import batch_slices

IMAGES = networks.pixels(32, 4, seed=5)
CALIBRATION = networks.calibration(32)


@functools.cache
def planned(family="v2"):
    return plan(networks.equalized(family, short=True), CALIBRATION, QuantRecipe())


@functools.cache
def rounded(family="v2"):
    images = CALIBRATION.images
    return round_parameters(planned(family), QuantRecipe(), images)


def simulated(floating=(), family="v2", images=IMAGES):
    """Return the logits of the whole network, computed at once."""
    p = planned(family)
    simulation = FakeQuantizedNetwork(
        p.traced, p.ops, p.encodings, rounded(family), floating, keep=True
    )
    with torch.no_grad():
        return simulation.values(torch.from_numpy(images))[p.ops[-1].output].numpy()


@pytest.mark.parametrize("family", ["v1", "v2", "v3-small"])
def test_the_simulation_is_close_to_the_integers(family):
    reference = IntegerReference(networks.quantized(family, short=True))
    expected = reference.run({INPUT_NAME: IMAGES})[OUTPUT_NAME]
    assert sqnr_db(expected, simulated(family=family)) > 30


def test_with_everything_in_float_the_simulation_is_the_float_network():
    everything = {op.operator.name for op in planned().ops}
    with torch.no_grad():
        expected = planned().traced(torch.from_numpy(IMAGES)).numpy()
    np.testing.assert_array_equal(simulated(everything), expected)


@pytest.mark.parametrize(
    "kept", [("features.0.0",), ("features.2.conv.2", "features.3.conv.2"), ("classifier.1",)]
)
def test_what_is_not_computed_again_is_what_it_would_have_been(kept):
    p = planned()
    floating = float_ops(p.ops, kept)
    float_logits = simulated({op.operator.name for op in p.ops})
    with torch.no_grad():
        noises = [
            Noise(p, rounded(), torch.from_numpy(IMAGES[i : i + 1])).of(floating) for i in range(4)
        ]
    expected = np.square(simulated(floating).astype(float) - float_logits).sum(axis=1)
    np.testing.assert_allclose(noises, expected, rtol=1e-3)


def test_every_image_of_every_part_counts():
    images = networks.pixels(32, 60, seed=5)
    assert len(batch_slices(images, size=1)) == 2
    everything = {op.operator.name for op in planned().ops}
    exact, int8 = simulated(everything, images=images), simulated(images=images)
    (found,) = sqnrs_db(planned(), rounded(), images, [frozenset()])
    close = pytest.approx(sqnr_db(exact, int8), abs=0.01)  # sums in another order move codes
    assert found == close
    assert sqnr_db(exact[:49], int8[:49]) != close
    assert sqnr_db(exact[49:], int8[49:]) != close


def test_the_layer_that_was_damaged_ranks_first_in_both_ways():
    damaged = next(
        u for u in planned().ops if u.has_weight and "features.3.conv.1" in layer_name(u)
    )
    parameters = dict(rounded())
    was = parameters[damaged.operator.name]
    parameters[damaged.operator.name] = Rounded(was.weight.flip(0), was.bias)
    int8_db, layers = measure_layers(planned(), parameters, parameters, IMAGES)
    healthy_db, healthy = measure_layers(planned(), rounded(), rounded(), IMAGES)
    assert layers[0].name == layer_name(damaged)
    assert healthy[0].gain_db < layers[0].gain_db
    assert int8_db < healthy_db - 3
    assert layers[0].kept_sqnr_db == pytest.approx(int8_db + layers[0].gain_db)
    assert max(layers, key=lambda layer: layer.gain_db) is layers[0]
    alone = [layer.only_sqnr_db for layer in layers]
    assert alone == sorted(alone)


def test_what_a_layer_costs_alone_is_measured_with_what_it_is_alone():
    parameters = dict(rounded())
    name = planned().ops[0].operator.name
    was = parameters[name]
    parameters[name] = Rounded(was.weight, was.bias + 1)
    healthy_db, healthy = measure_layers(planned(), rounded(), rounded(), IMAGES)
    int8_db, layers = measure_layers(planned(), rounded(), parameters, IMAGES)
    assert int8_db == healthy_db
    before = {layer.name: layer for layer in healthy}
    for layer in layers:
        same = layer.name != "features.0.0"
        assert (layer.only_sqnr_db == before[layer.name].only_sqnr_db) is same
        assert layer.kept_sqnr_db == before[layer.name].kept_sqnr_db


def test_the_macs_are_those_of_the_network():
    model = networks.folded("v2", short=True)
    _, layers = measure_layers(planned(), rounded(), rounded(), IMAGES[:1])
    assert sum(layer.macs for layer in layers) == summarize(networks.spec_of(model)).macs
    assert math.isclose(sum(layer.macs_share for layer in layers), 1)
    kinds = {layer.name: layer.kind for layer in layers}
    assert kinds["features.0.0"] == "convolution"
    assert kinds["features.3.conv.1.0"] == "depthwise"
    assert kinds["classifier.1"] == "linear"
