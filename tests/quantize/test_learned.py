"""Integers and biases learned from the float network's logits."""

import networks
import numpy as np
import pytest
import torch

from mobiledeploy.quantize import quantize
from mobiledeploy.quantize.reference import IntegerReference
from mobiledeploy.types import RECIPES


@pytest.fixture(scope="module")
def by_recipe():
    """A network whose early layers are rounded coarsely, quantized by every recipe."""
    model = networks.equalized("v2", short=True)
    calibration = networks.calibration(32, count=16)
    return {name: quantize(model, calibration, recipe) for name, recipe in RECIPES.items()}


def noise(quantized):
    """Return the logits' error on images that nobody has calibrated on, relative to the logits."""
    images = networks.pixels(32, count=24, seed=7)
    with torch.no_grad():
        exact = networks.folded("v2", short=True).module(torch.from_numpy(images)).numpy()
    logits = IntegerReference(quantized).run({"input": images})["logits"]
    return np.square(logits - exact).sum() / np.square(exact).sum()


def test_learning_lowers_the_error_on_images_it_has_not_seen(by_recipe):
    assert noise(by_recipe["best"]) < noise(by_recipe["balanced"])


def test_learning_moves_integers_and_leaves_the_encodings(by_recipe):
    before, after = by_recipe["balanced"], by_recipe["best"]
    assert before.encodings == after.encodings
    assert before.encodings_digest != after.encodings_digest


def test_the_same_images_teach_the_same_integers(by_recipe):
    again = quantize(
        networks.equalized("v2", short=True), networks.calibration(32, 16), RECIPES["best"]
    )
    assert again.encodings_digest == by_recipe["best"].encodings_digest
