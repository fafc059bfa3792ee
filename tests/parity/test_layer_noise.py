"""Quantization noise per layer: a layer's own, and what it gets from its inputs."""

import copy
import math
from dataclasses import replace

import networks
import pytest
import torch

from mobiledeploy.parity.layer_noise import MIN_OWN_SQNR_DB, first_noisy, measure_layer_noise
from mobiledeploy.parity.types import LayerNoise
from mobiledeploy.quantization.integer_reference import IntegerReference
from mobiledeploy.utils.quiet import quietly


@pytest.fixture(scope="module", params=["v2", "v3-small"])
def noise(request):
    family, resolution = request.param, 32 if request.param == "v2" else 64
    reference = IntegerReference(networks.quantized(family, resolution, short=True))
    equalized = networks.equalized(family, resolution, short=True)
    return measure_layer_noise(reference, equalized, networks.pixels(resolution, count=4, seed=3))


def test_every_layer_has_its_noise_and_the_logits_are_the_last(noise):
    assert len(noise) > 10
    assert noise[-1].name.startswith("classifier")
    assert noise[-1].name.split()[-1].startswith("linear")
    assert all(math.isfinite(layer.sqnr_db) for layer in noise)
    assert len({layer.name for layer in noise}) == len(noise)


def test_sqnr_drops_add_up_along_a_chain(noise):
    """The noise behind the first convolution is that of the image and its own."""
    first, second = noise[0], noise[1]
    assert first.sqnr_db <= first.own_sqnr_db + 0.5
    assert second.sqnr_drop_db == pytest.approx(first.sqnr_db - second.sqnr_db)


def test_the_last_layers_noise_is_that_of_the_logits():
    import numpy as np

    from mobiledeploy.metrics import sqnr_db

    images = networks.pixels(32, count=4, seed=3)
    reference = IntegerReference(networks.quantized("v2", 32, short=True))
    equalized = networks.equalized("v2", 32, short=True)
    with torch.no_grad():
        exact = equalized.module(torch.from_numpy(images)).numpy()
    logits = reference.run({"input": images})["logits"]
    expected = sqnr_db(exact, logits.astype(np.float64))
    assert measure_layer_noise(reference, equalized, images)[-1].sqnr_db == pytest.approx(expected)


def test_a_layer_with_other_weights_stands_out_by_its_own_noise():
    reference = IntegerReference(networks.quantized("v2", 32, short=True))
    equalized = networks.equalized("v2", 32, short=True)
    with quietly():  # copying a graph warns about torch's own pytree
        module = copy.deepcopy(equalized.module)
    weight = [p for p in module.parameters() if p.dim() == 4][3]
    with torch.no_grad():
        weight.copy_(weight.flip(0))
    noise = measure_layer_noise(
        reference, replace(equalized, module=module), networks.pixels(32, count=4, seed=3)
    )
    worst = min(noise, key=lambda layer: layer.own_sqnr_db)
    assert worst.name == "features.2.conv.0.0 conv2d_3"
    assert first_noisy(noise) == worst.name


def test_no_layer_is_named_where_none_is_noisy():
    good = LayerNoise(name="a", sqnr_db=1, own_sqnr_db=MIN_OWN_SQNR_DB, sqnr_drop_db=9)
    assert first_noisy([good]) == ""
    assert first_noisy([]) == ""
