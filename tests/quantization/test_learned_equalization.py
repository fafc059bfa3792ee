"""Learned equalization keeps the float function and improves the int8 network."""

from dataclasses import replace

import networks
import numpy as np
import pytest
import torch
from networks import FAMILIES

from mobiledeploy.errors import DataError
from mobiledeploy.graph.aten_graph import trace
from mobiledeploy.graph.channel_groups import find_groups, rescale
from mobiledeploy.graph.fused_ops import find_fused_ops
from mobiledeploy.graph.observers import observe
from mobiledeploy.graph.shared_encodings import find_shared_encodings
from mobiledeploy.quantization import learned_equalization
from mobiledeploy.quantization.distillation import distillation_loss, float_logits
from mobiledeploy.quantization.encodings import encode
from mobiledeploy.quantization.fake_quantize import FloatWeightNetwork
from mobiledeploy.quantization.learned_equalization import learn_equalization
from mobiledeploy.quantization.make_plan import make_plan
from mobiledeploy.stages import QuantRecipe

EVERY_FAMILY = pytest.mark.parametrize("family", FAMILIES)
SHORT = {"v1", "v2", "v3-small"}


def equalized(family):
    return networks.equalized(family, short=family in SHORT)


def learned(family, images=None):
    return learn_equalization(equalized(family), images or networks.calibration(32))


def plan_and_student(model, images):
    plan = make_plan(model, images, QuantRecipe())
    return plan, learned_equalization._Student(plan, find_groups(plan.traced, plan.ops))


@pytest.mark.ci
@EVERY_FAMILY
def test_the_outputs_on_the_calibration_images_stay_the_same(family):
    networks.assert_same_outputs(equalized(family), learned(family), networks.pixels(32))


def activation_loss(model, images):
    """Return the loss with int8 activations on the model's ranges, and float weights."""
    plan, student = plan_and_student(model, images)
    return distillation_loss(student, images.images, float_logits(plan.traced, images.images))


@pytest.mark.parametrize("family", ["v1", "v2"])  # V3's hard-swishes leave few scales to learn
def test_learning_lowers_the_loss_of_int8_activations(family):
    images = networks.calibration(32, 96)
    before = activation_loss(networks.equalized(family), images)
    after = activation_loss(learn_equalization(networks.equalized(family), images), images)
    assert after < 0.97 * before


@pytest.mark.ci
@EVERY_FAMILY
def test_the_student_with_scales_computes_what_the_rescaled_network_will(family):
    images = torch.from_numpy(networks.pixels(32))
    plan, student = plan_and_student(equalized(family), networks.calibration(32))
    groups = find_groups(plan.traced, plan.ops)
    with torch.no_grad():
        before = student.run(images)
        for number, log_scale in enumerate(student.log_scales):
            log_scale.copy_(torch.linspace(-3, 3, len(log_scale)).roll(number))
        student.project()
        during = student.run(images)
        for group, scale in zip(groups, student.scales(), strict=True):
            rescale(plan.traced, group, scale)
        after = learned_equalization._Student(plan, groups).run(images)
    assert (after - during).norm() < 0.1 * (after - before).norm()  # some codes near a tie
    assert (after - before).norm() > 0.03 * before.norm()


@EVERY_FAMILY
def test_the_student_with_widths_computes_what_the_learned_ranges_will(family):
    images = torch.from_numpy(networks.pixels(32))
    plan, student = plan_and_student(equalized(family), networks.calibration(32))
    with torch.no_grad():
        before = student.run(images)
        for number, log_width in enumerate(student.log_widths.values()):
            log_width.fill_((-0.7, -0.3, 0.4)[number % 3])
        student.project()
        during = student.run(images)
    ranges = student.ranges()
    encodings = {
        node: encode(*ranges[name]) for node, name in student._shared_of.items() if name in ranges
    }
    changed = replace(plan, encodings={**plan.encodings, **encodings})
    with torch.no_grad():
        after = FloatWeightNetwork(changed).run(images)
    assert (after - during).norm() < 0.03 * during.norm()
    assert (during - before).norm() > 0.1 * before.norm()


@pytest.mark.parametrize(("count", "steps"), [(1, 1), (2, 1), (24, 10)])
def test_hold_out_images_are_not_learned_from(count, steps, monkeypatch):
    calibration = networks.calibration(32, count)
    seen = []
    original = learned_equalization.distillation_step
    monkeypatch.setattr(
        learned_equalization,
        "distillation_step",
        lambda student, adam, images, targets: (
            seen.append(images) or original(student, adam, images, targets)
        ),
    )
    learned("v1", calibration)
    hold_out = calibration.images[::6] if count > 1 else np.zeros((0, 3, 32, 32))
    assert len(seen) == steps
    assert not any((images[:, None] == hold_out).all((2, 3, 4)).any() for images in seen)


def reached(model, images):
    """Return the maxima of the channels of each group below a ReLU6."""
    traced = trace(model)
    nodes = [g.nodes[0] for g in find_groups(traced, find_fused_ops(traced)) if g.ceiling == 6]
    stats = observe(traced, nodes, images).values()
    return np.concatenate([s.maxima.max(0) for s in stats])


@pytest.mark.parametrize("rate", [learned_equalization._SCALE_RATE, 1.0])
def test_a_channel_below_a_relu6_is_not_scaled_up_until_it_is_clipped(rate, monkeypatch):
    monkeypatch.setattr(learned_equalization, "_SCALE_RATE", rate)
    images = networks.calibration(32)
    before = reached(equalized("v2"), images)
    after = reached(learned("v2"), images)
    margin = 1 + 3 / np.sqrt(images.count)
    assert (after <= 1.0001 * np.maximum(before, 6 / margin)).all()
    assert (after[before == 6] == 6).all()  # clipped before and after
    assert (before == 6).any()
    assert (after < 0.99 * before).any()


def test_learned_ranges_stay_inside_their_clamps(monkeypatch):
    """A range beyond its clamp would spend codes on values that the clamp removes."""
    monkeypatch.setattr(learned_equalization, "_WIDTH_RATE", 0.5)
    model = learned("v2")
    traced = trace(model)
    clamps = {
        shared.name: shared.clamp
        for shared in find_shared_encodings(traced, find_fused_ops(traced))
    }
    below_six = 0
    for name, (low, high) in model.ranges.items():
        assert low >= clamps[name][0]
        assert high <= clamps[name][1]
        below_six += high < clamps[name][1] == 6
    assert below_six


def test_the_same_images_give_the_same_scales():
    first, second, start = (
        model.module.state_dict() for model in (learned("v2"), learned("v2"), equalized("v2"))
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], start[name]) for name in first)


def test_the_model_is_not_modified():
    model = equalized("v2")
    before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    learn_equalization(model, networks.calibration(32))
    for name, tensor in model.module.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize(
    ("count", "thorough", "steps"),
    [
        (1, False, 1),
        (4, False, 1),  # three to learn from; a batch must not be empty
        (24, False, 10),  # twenty, each seen four times
        (96, True, 40),
        (180, False, 48),
        (180, True, 72),
    ],
)
def test_few_images_are_seen_at_most_four_times(count, thorough, steps, monkeypatch):
    taken = []
    monkeypatch.setattr(
        learned_equalization, "distillation_step", lambda _, adam, *__: taken.append(adam.step())
    )
    learn_equalization(equalized("v1"), networks.calibration(32, count), thorough=thorough)
    assert len(taken) == steps


def test_an_empty_calibration_set_is_refused():
    with pytest.raises(DataError, match="calibration set is empty"):
        learned("v2", networks.calibration(32, 0))
