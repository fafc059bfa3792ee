"""Learned rounding improves the hold-out loss, and never makes it worse."""

import networks
import numpy as np
import pytest
import torch

from mobiledeploy.errors import DataError
from mobiledeploy.quantization import learned_rounding
from mobiledeploy.quantization import round_layers as round_layers_module
from mobiledeploy.quantization.distillation import (
    _HOLD_OUT_EVERY,
    distillation_loss,
    float_logits,
)
from mobiledeploy.quantization.integer_reference import IntegerReference
from mobiledeploy.quantization.ptq import quantize

COUNT = 24


@pytest.fixture(scope="module")
def by_recipe():
    """Return a network quantized by both recipes, with many images for its size."""
    return {name: quantized(name) for name in ("balanced", "best")}


def quantized(recipe, count=COUNT):
    model = networks.equalized("v3-small", short=True)
    return quantize(model, networks.calibration(32, count), networks.recipe_for(model, recipe))


def relative_error(model, images):
    """Return the squared error of the logits over the squared logits."""
    with torch.no_grad():
        exact = networks.folded("v3-small", short=True).module(torch.from_numpy(images)).numpy()
    logits = IntegerReference(model).run({"input": images})["logits"]
    return np.square(logits - exact).sum() / np.square(exact).sum()


@pytest.mark.ci
def test_learning_lowers_the_error_on_images_that_it_has_not_seen(by_recipe):
    unseen = networks.pixels(32, 64, seed=11)
    before, after = (relative_error(by_recipe[name], unseen) for name in ("balanced", "best"))
    assert after < 0.99 * before


def test_the_best_epoch_is_returned_not_the_last(monkeypatch):
    losses, returned = [], []

    def record_loss(student, images, targets):
        losses.append(distillation_loss(student, images, targets))
        return losses[-1]

    def learn(plan, images, start, learn=learned_rounding.learn_rounding):
        best = learn(plan, images, start)
        hold_out = images[::_HOLD_OUT_EVERY]
        student = learned_rounding._Student(plan, best)
        targets = float_logits(plan.traced, hold_out)
        returned.append((tuple(losses), distillation_loss(student, hold_out, targets)))
        return best

    monkeypatch.setattr(learned_rounding, "distillation_loss", record_loss)
    monkeypatch.setattr(round_layers_module, "learn_rounding", learn)
    quantized("best")
    ((of_epochs, of_result),) = returned
    assert min(of_epochs) < of_epochs[-1]  # otherwise the last is the best
    assert of_result == pytest.approx(min(of_epochs), rel=1e-5)  # float32, in other batches


@pytest.mark.ci
def test_many_images_move_weights_to_their_other_integer(monkeypatch):
    moved = {}

    def learn(plan, images, start, learn=learned_rounding.learn_rounding):
        for name, layer in learn(plan, images, start).items():
            grid = plan.scales[name].view(-1, *[1] * (layer.weight.dim() - 1))
            moved[name] = ((layer.weight - start[name].weight) / grid).abs()
        return start

    monkeypatch.setattr(round_layers_module, "learn_rounding", learn)
    quantized("best", 200)
    assert sum(int((steps > 0.5).sum()) for steps in moved.values()) > 10
    assert all(float(steps.max()) < 1.5 for steps in moved.values())


def test_learning_changes_integers_and_keeps_the_encodings(by_recipe):
    before, after = by_recipe["balanced"], by_recipe["best"]
    assert before.encodings == after.encodings
    assert before.encodings_digest != after.encodings_digest


def test_biases_stay_on_their_grid_during_learning(monkeypatch):
    """Otherwise dead channels, whose grid is 2**-40 wide, would be clamped only afterwards."""
    codes = []

    def learn(plan, _images, start):
        student = learned_rounding._Student(plan, start)
        with torch.no_grad():
            for bias in student.biases.values():
                bias.fill_(1e30)
        input_scales = {op.name: plan.input_scale(op) for op in plan.layers}
        for name, layer in student.rounded().items():
            codes.append(layer.bias / (input_scales[name] * plan.scales[name]))
        return start

    monkeypatch.setattr(round_layers_module, "learn_rounding", learn)
    quantized("best")
    assert len(codes) > 5
    assert all(torch.allclose(each, torch.tensor(2.0**22)) for each in codes)


def test_the_same_images_give_the_same_integers(by_recipe):
    assert quantized("best").encodings_digest == by_recipe["best"].encodings_digest


def test_what_does_not_improve_on_hold_out_images_is_discarded(monkeypatch, by_recipe):
    monkeypatch.setattr(learned_rounding, "_WEIGHT_RATE", 30.0)  # moves weights far off
    assert quantized("best").encodings_digest == by_recipe["balanced"].encodings_digest


def test_too_few_images_are_refused():
    few = learned_rounding._LEAST_IMAGES - 1
    with pytest.raises(DataError, match=f"{few} calibration images are too few to learn from"):
        quantized("best", few)
