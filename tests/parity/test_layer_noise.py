"""Noise layer by layer: whose it is, and where it was before."""

import copy
import math
from dataclasses import replace

import networks
import pytest
import torch

from mobiledeploy.parity.layer_noise import BAD_OWN_SQNR_DB, first_bad, layer_errors
from mobiledeploy.parity.types import LayerError
from mobiledeploy.quantization.integer_reference import IntegerReference
from mobiledeploy.utils.quiet import quietly


@pytest.fixture(scope="module", params=["v2", "v3-small"])
def errors(request):
    family, resolution = request.param, 32 if request.param == "v2" else 64
    reference = IntegerReference(networks.quantized(family, resolution, short=True))
    equalized = networks.equalized(family, resolution, short=True)
    return layer_errors(reference, equalized, networks.pixels(resolution, count=4, seed=3))


def test_every_layer_has_its_noise_and_the_logits_are_the_last(errors):
    assert len(errors) > 10
    assert errors[-1].name.startswith("classifier")
    assert errors[-1].name.split()[-1].startswith("linear")
    assert all(math.isfinite(layer.sqnr_db) for layer in errors)
    assert len({layer.name for layer in errors}) == len(errors)


def test_what_a_layer_gains_adds_up_along_a_chain(errors):
    """Behind the first convolution the noise is the image's and the convolution's."""
    first, second = errors[0], errors[1]
    assert first.sqnr_db <= first.own_sqnr_db + 0.5
    assert second.gained_db == pytest.approx(first.sqnr_db - second.sqnr_db)


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
    assert layer_errors(reference, equalized, images)[-1].sqnr_db == pytest.approx(expected)


def test_a_layer_with_other_weights_stands_out_by_its_own_noise():
    reference = IntegerReference(networks.quantized("v2", 32, short=True))
    equalized = networks.equalized("v2", 32, short=True)
    with quietly():  # copying a graph warns about torch's own pytree
        module = copy.deepcopy(equalized.module)
    weight = [p for p in module.parameters() if p.dim() == 4][3]
    with torch.no_grad():
        weight.copy_(weight.flip(0))
    errors = layer_errors(
        reference, replace(equalized, module=module), networks.pixels(32, count=4, seed=3)
    )
    worst = min(errors, key=lambda layer: layer.own_sqnr_db)
    assert worst.name == "features.2.conv.0.0 conv2d_3"
    assert first_bad(errors) == worst.name


def test_no_layer_is_bad_where_all_are_good():
    good = LayerError(name="a", sqnr_db=1, own_sqnr_db=BAD_OWN_SQNR_DB, gained_db=9)
    assert first_bad([good]) == ""
    assert first_bad([]) == ""
