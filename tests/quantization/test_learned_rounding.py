"""Integers and biases learned from the float network's logits."""

import networks
import numpy as np
import pytest
import torch

from mobiledeploy.errors import DataError
from mobiledeploy.network import RECIPES
from mobiledeploy.quantization import distillation as descent
from mobiledeploy.quantization import learned_rounding as learned
from mobiledeploy.quantization import plan as prepare
from mobiledeploy.quantization.integer_reference import IntegerReference
from mobiledeploy.quantization.ptq import quantize

COUNT = 24


@pytest.fixture(scope="module")
def by_recipe():
    """A network whose calibration images are many for its size, quantized by every recipe."""
    return {name: quantized(name) for name in RECIPES}


def quantized(recipe, count=COUNT):
    model = networks.equalized("v3-small", short=True)
    return quantize(model, networks.calibration(32, count), RECIPES[recipe])


def noise(model, images):
    """Return the logits' error, relative to the logits."""
    with torch.no_grad():
        exact = networks.folded("v3-small", short=True).module(torch.from_numpy(images)).numpy()
    logits = IntegerReference(model).run({"input": images})["logits"]
    return np.square(logits - exact).sum() / np.square(exact).sum()


def test_learning_lowers_the_error_of_the_images_that_judge(by_recipe):
    judges = networks.pixels(32, COUNT)[:: descent._HOLD_OUT]
    assert noise(by_recipe["best"], judges) < 0.97 * noise(by_recipe["balanced"], judges)


def test_the_best_epoch_is_what_is_returned_not_the_last(monkeypatch):
    losses, returned = [], []

    def loss(student, images, targets, loss=descent.loss):
        losses.append(loss(student, images, targets))
        return losses[-1]

    def learn(*given, learn=learned.learn):
        traced, ops, encodings, scales, images, _start = given
        best = learn(*given)
        judges = images[:: descent._HOLD_OUT]
        student = learned._Student(traced, ops, encodings, scales, best)
        targets = descent.float_logits(traced, judges)
        returned.append((tuple(losses), loss(student, judges, targets)))
        return best

    monkeypatch.setattr(learned, "loss", loss)
    monkeypatch.setattr(prepare, "learn", learn)
    quantized("best")
    ((judged, again),) = returned
    assert min(judged) < judged[-1]  # else the last is the best, and nothing is shown
    assert again == pytest.approx(min(judged), rel=1e-5)  # float32, in other parts


def test_weights_flip_where_many_images_ask_for_it(monkeypatch):
    """They did not: a whole course of steps was less than the half that a flip takes."""
    moved = {}

    def learn(*given, learn=learned.learn):
        *_, scales, _images, start = given
        for name, rounded in learn(*given).items():
            grid = scales[name].view(-1, *[1] * (rounded.weight.dim() - 1))
            moved[name] = ((rounded.weight - start[name].weight) / grid).abs()
        return start

    monkeypatch.setattr(prepare, "learn", learn)
    quantized("best", 200)
    assert sum(int((steps > 0.5).sum()) for steps in moved.values()) > 10
    assert all(float(steps.max()) < 1.5 for steps in moved.values())


def test_learning_moves_integers_and_leaves_the_encodings(by_recipe):
    before, after = by_recipe["balanced"], by_recipe["best"]
    assert before.encodings == after.encodings
    assert before.encodings_digest != after.encodings_digest


def test_no_bias_is_learned_that_its_channels_grid_cannot_say(monkeypatch):
    """What learning believes in is what is exported: a dead channel's grid is 2**-40 wide."""
    biases = []

    def learn(*given):
        traced, ops, encodings, scales, _images, start = given
        student = learned._Student(traced, ops, encodings, scales, start)
        with torch.no_grad():
            for bias in student.biases.values():
                bias.fill_(1e30)
        input_scales = {u.operator.name: encodings[u.activations[0].name].scale for u in ops}
        for name, rounded in student.rounded().items():
            biases.append(rounded.bias / (input_scales[name] * scales[name]))
        return start

    monkeypatch.setattr(prepare, "learn", learn)
    quantized("best")
    assert len(biases) > 5
    assert all(torch.allclose(codes, torch.tensor(2.0**22)) for codes in biases)


def test_the_same_images_teach_the_same_integers(by_recipe):
    assert quantized("best").encodings_digest == by_recipe["best"].encodings_digest


def test_what_does_not_hold_for_other_images_is_not_kept(monkeypatch, by_recipe):
    monkeypatch.setattr(learned, "_WEIGHT_RATE", 30.0)  # destroys whatever it touches
    assert quantized("best").encodings_digest == by_recipe["balanced"].encodings_digest


def test_too_few_images_are_refused():
    few = learned._LEAST_IMAGES - 1
    with pytest.raises(DataError, match=f"{few} calibration images are too few to learn from"):
        quantized("best", few)
