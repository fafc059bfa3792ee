"""Factors learned from the logits: the same function, better kept by int8."""

import itertools
from dataclasses import replace

import networks
import numpy as np
import pytest
import torch

from mobiledeploy.errors import DataError
from mobiledeploy.graph.aten_graph import (
    find_fused_ops,
    find_shared_encodings,
    trace,
    weight_and_bias,
)
from mobiledeploy.graph.channel_groups import find_groups, rescale
from mobiledeploy.graph.observers import observe
from mobiledeploy.models.spec import FAMILIES
from mobiledeploy.network import QuantRecipe
from mobiledeploy.pipeline import stages as _stages
from mobiledeploy.pipeline.build import build
from mobiledeploy.pipeline.stages import run_stages
from mobiledeploy.quantization import encoding_selection as judge
from mobiledeploy.quantization import learned_equalization as factors
from mobiledeploy.quantization import plan as prepare
from mobiledeploy.quantization.distillation import float_logits, loss
from mobiledeploy.quantization.encodings import encode, learnable_encodings
from mobiledeploy.quantization.fake_quantize import Rounded
from mobiledeploy.quantization.learned_equalization import learn_equalization
from mobiledeploy.quantization.plan import plan
from mobiledeploy.quantization.ptq import quantize

EVERY_FAMILY = pytest.mark.parametrize("family", FAMILIES)
SHORT = {"v1", "v2", "v3-small"}
MINMAX = QuantRecipe(range_rule="minmax")


def even(family):
    return networks.equalized(family, short=family in SHORT)


def learned(family, images=None):
    return learn_equalization(even(family), images or networks.calibration(32))


@EVERY_FAMILY
def test_the_outputs_on_the_calibration_images_stay_what_they_were(family):
    networks.assert_same_outputs(even(family), learned(family), networks.pixels(32))


def error_of_activations(model, images):
    """Return the logits' relative error where activations are int8 on its ranges, weights float."""
    planned = plan(model, images, QuantRecipe())
    student = factors._Student(planned, find_groups(planned.traced, planned.ops))
    return loss(student, images.images, float_logits(planned.traced, images.images))


@pytest.mark.parametrize("family", ["v1", "v2"])  # V3's curved activations leave few to learn
def test_what_int8_activations_do_to_the_logits_becomes_less(family):
    images = networks.calibration(32, 96)
    before = error_of_activations(networks.equalized(family), images)
    after = error_of_activations(learn_equalization(networks.equalized(family), images), images)
    assert after < 0.97 * before


@EVERY_FAMILY
def test_what_is_learned_from_is_the_network_that_comes_of_it(family):
    images = torch.from_numpy(networks.pixels(32))
    planned = plan(even(family), networks.calibration(32), QuantRecipe())
    groups = find_groups(planned.traced, planned.ops)
    student = factors._Student(planned, groups)
    with torch.no_grad():
        before = student.run(images)
        for number, logarithms in enumerate(student.logs_of_factors):
            logarithms.copy_(torch.linspace(-3, 3, len(logarithms)).roll(number))
        student.keep_function()
        during = student.run(images)
        for group, factor in zip(groups, student.factors(), strict=True):
            rescale(planned.traced, group, factor)
        after = factors._Student(planned, groups).run(images)
    assert (after - during).norm() < 0.1 * (after - before).norm()  # some codes next to half-way
    assert (after - before).norm() > 0.03 * before.norm()


@EVERY_FAMILY
def test_the_ranges_that_are_learned_from_are_those_that_come_of_it(family):
    images = torch.from_numpy(networks.pixels(32))
    planned = plan(even(family), networks.calibration(32), QuantRecipe())
    student = factors._Student(planned, find_groups(planned.traced, planned.ops))
    with torch.no_grad():
        before = student.run(images)
        for number, logarithm in enumerate(student.logs_of_widths.values()):
            logarithm.fill_((-0.7, -0.3, 0.4)[number % 3])
        student.keep_function()
        during = student.run(images)
    encodings = dict(planned.encodings)
    for name, node in student._site_of.items():
        encodings[name] = encode(*student.ranges()[node])
    with torch.no_grad():
        given = (planned.traced, planned.ops, encodings)
        unrounded = {
            op.operator.name: Rounded(*weight_and_bias(planned.traced, op))
            for op in planned.ops
            if op.has_weight
        }
        after = judge._Candidate(*given, unrounded).run(images)
    assert (after - during).norm() < 0.03 * during.norm()
    assert (during - before).norm() > 0.1 * before.norm()


@pytest.mark.parametrize(("count", "steps"), [(1, 1), (2, 1), (24, 10)])
def test_images_that_judge_are_not_learned_from(count, steps, monkeypatch):
    calibration = networks.calibration(32, count)
    seen = []
    distill = factors.distill
    monkeypatch.setattr(
        factors,
        "distill",
        lambda student, adam, images, targets: (
            seen.append(images) or distill(student, adam, images, targets)
        ),
    )
    learned("v1", calibration)
    judges = calibration.images[::6] if count > 1 else np.zeros((0, 3, 32, 32))
    assert len(seen) == steps
    assert not any((images[:, None] == judges).all((2, 3, 4)).any() for images in seen)


def test_a_plan_takes_learned_ranges_where_they_are_judged_better(monkeypatch):
    images = networks.calibration(32)
    model = learned("v2", images)
    monkeypatch.setattr(prepare, "_ENOUGH_TO_HOLD_OUT", images.count)
    chosen = {}
    for number in (0, 1):
        monkeypatch.setattr(prepare, "select_encodings", lambda *_, number=number: number)
        chosen[number] = plan(model, images, QuantRecipe()).by_shared_encoding
    widest = plan(model, images, MINMAX).by_shared_encoding  # nobody is asked
    monkeypatch.setattr(prepare, "_ENOUGH_TO_HOLD_OUT", images.count + 1)
    few = plan(model, images, QuantRecipe()).by_shared_encoding  # nor here
    monkeypatch.undo()
    searched = plan(replace(model, ranges={}), images, QuantRecipe()).by_shared_encoding
    assert few == searched
    assert chosen[0] == searched
    kept = {name for name in model.ranges if chosen[1][name] != searched[name]}
    assert len(kept) > 0.5 * len(searched)
    for name in kept:
        assert chosen[1][name].high == pytest.approx(model.ranges[name][1], rel=1e-6), name
    assert widest == plan(replace(model, ranges={}), images, MINMAX).by_shared_encoding


def test_the_better_of_two_choices_is_found_in_either_order():
    planned = plan(even("v2"), networks.calibration(32), QuantRecipe())
    good = planned.encodings
    bad = {name: replace(each, scale=each.scale / 3) for name, each in good.items()}
    given = (planned.traced, planned.ops)
    images = networks.pixels(32)
    assert judge.select_encodings(*given, [good, bad], images, images) == 0
    assert judge.select_encodings(*given, [bad, good], images, images) == 1


@pytest.mark.parametrize(("family", "corrected"), [("v2", False), ("v3-small", True)])
def test_biases_are_corrected_before_anything_is_judged_where_products_are(family, corrected):
    planned = plan(even(family), networks.calibration(32), QuantRecipe())
    images = networks.pixels(32)
    found = judge._parameters(planned.traced, planned.ops, planned.encodings, images)
    for op in planned.ops:
        if op.has_weight:
            weight, bias = weight_and_bias(planned.traced, op)
            assert torch.equal(found[op.operator.name].weight, weight)
            assert torch.equal(found[op.operator.name].bias, bias) is not corrected


@pytest.mark.parametrize(
    ("family", "number"), [("v2", 1), ("v2", 2), ("v3-small", 2), ("v3-small", 4)]
)
def test_choices_are_of_learned_ranges_and_of_suited_products(family, number, monkeypatch):
    images = networks.calibration(32)
    model = even(family) if number == (1 if family == "v2" else 2) else learned(family, images)
    monkeypatch.setattr(prepare, "_ENOUGH_TO_HOLD_OUT", images.count)
    asked = []

    def best(_traced, _units, choices, *_):
        asked.append(choices)
        return len(choices) - 1

    monkeypatch.setattr(prepare, "select_encodings", best)
    chosen = plan(model, images, QuantRecipe()).encodings
    if number == 1:
        assert not asked
        return
    (choices,) = asked
    assert len(choices) == number
    assert chosen == choices[-1]
    assert all(one != other for one, other in itertools.combinations(choices, 2))


@EVERY_FAMILY
def test_no_range_is_learned_that_is_dictated(family):
    planned = plan(even(family), networks.calibration(32), QuantRecipe())
    shared_encodings = find_shared_encodings(planned.traced, planned.ops)
    learnable = learnable_encodings(planned.ops, shared_encodings)
    assert learnable
    assert not {shared_encodings[0].name, shared_encodings[-1].name} & learnable
    shared_encoding_of = {node: shared.name for shared in shared_encodings for node in shared.nodes}
    for op in planned.ops:
        if op.kind in ("hardswish", "multiply", "pool"):
            assert shared_encoding_of[op.output] not in learnable
        if op.kind == "hardswish":
            assert shared_encoding_of[op.activations[0]] not in learnable


def reached(model, images):
    """Return how far the channels of each group below a ReLU6 reach."""
    traced = trace(model)
    nodes = [g.nodes[0] for g in find_groups(traced, find_fused_ops(traced)) if g.ceiling == 6]
    seen = observe(traced, nodes, images).values()
    return np.concatenate([tensor.maxima.max(0) for tensor in seen])


@pytest.mark.parametrize("rate", [factors._FACTOR_RATE, 1.0])
def test_a_channel_below_a_relu6_is_not_scaled_up_to_where_it_would_be_cut_off(rate, monkeypatch):
    monkeypatch.setattr(factors, "_FACTOR_RATE", rate)
    images = networks.calibration(32)
    before = reached(even("v2"), images)
    after = reached(learned("v2"), images)
    margin = 1 + 3 / np.sqrt(images.count)
    assert (after <= 1.0001 * np.maximum(before, 6 / margin)).all()
    assert (after[before == 6] == 6).all()  # it is cut off, and goes on being
    assert (before == 6).any()
    assert (after < 0.99 * before).any()


def test_learned_ranges_do_not_reach_beyond_what_a_clamp_lets_through(monkeypatch):
    """They did: a clamp was left in the graph, and codes were spent on what it cuts off."""
    monkeypatch.setattr(factors, "_WIDTH_RATE", 0.5)
    model = learned("v2")
    traced = trace(model)
    shared_encodings = {
        shared.name: shared for shared in find_shared_encodings(traced, find_fused_ops(traced))
    }
    learned_below_six = 0
    for name, (low, high) in model.ranges.items():
        assert low >= shared_encodings[name].clamp[0]
        assert high <= shared_encodings[name].clamp[1]
        learned_below_six += high < shared_encodings[name].clamp[1] == 6
    assert learned_below_six


def test_the_same_images_teach_the_same_factors():
    first, second, start = (
        model.module.state_dict() for model in (learned("v2"), learned("v2"), even("v2"))
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], start[name]) for name in first)


def test_learning_leaves_the_model_as_it_was():
    model = even("v2")
    before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    learn_equalization(model, networks.calibration(32))
    for name, tensor in model.module.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize(
    ("count", "thorough", "steps"),
    [
        (1, False, 1),
        (4, False, 1),  # three to learn from; sets come in batches, of which none may be empty
        (24, False, 10),  # twenty, each seen four times
        (96, True, 40),
        (180, False, 48),
        (180, True, 72),
    ],
)
def test_few_images_are_not_learned_by_heart(count, thorough, steps, monkeypatch):
    taken = []
    monkeypatch.setattr(factors, "distill", lambda _, adam, *__: taken.append(adam.step()))
    learn_equalization(even("v1"), networks.calibration(32, count), thorough=thorough)
    assert len(taken) == steps


@pytest.mark.parametrize(("rounding", "thorough"), [("gptq", False), ("learned", True)])
def test_best_learns_thoroughly(rounding, thorough, monkeypatch):
    asked = []
    learn = learn_equalization
    monkeypatch.setattr(
        _stages, "learn_equalization", lambda *given, **how: asked.append(how) or learn(*given)
    )
    recipe = QuantRecipe(range_rule="minmax", rounding=rounding)
    model = build("v1", weights="random", width=0.25, resolution=32, num_classes=10)
    run_stages(model, networks.calibration(32, 12), recipe)
    assert asked == [{"thorough": thorough}]


def test_the_int8_network_notes_how_its_channels_were_rescaled():
    images = networks.calibration(32)
    for model, noted in (
        (networks.folded("v1", short=True), "none"),
        (even("v1"), "cross-layer"),
        (learned("v1"), "learned"),
    ):
        assert quantize(model, images).recipe.equalization == noted


def test_no_images_are_refused():
    with pytest.raises(DataError, match="calibration set is empty"):
        learned("v2", networks.calibration(32, 0))


@pytest.mark.parametrize("asked", ["none", "cross-layer", "learned"])
def test_a_network_gets_the_factors_that_its_recipe_asks_for(asked):
    model = build("v1", weights="random", width=0.25, resolution=32, num_classes=10)
    recipe = QuantRecipe(equalization=asked, range_rule="minmax", rounding="nearest")
    networks_on_the_way = run_stages(model, networks.calibration(32), recipe)
    assert networks_on_the_way.deployed.recipe == recipe
    assert networks_on_the_way.equalized.equalization == asked


def test_ranges_are_not_searched_on_the_images_that_judge(monkeypatch):
    calibration = networks.calibration(32, 24)
    monkeypatch.setattr(prepare, "_ENOUGH_TO_HOLD_OUT", 24)
    shown = {}

    def watch(name):
        function = getattr(prepare, name)

        def watched(*given):
            shown[name] = given[-1]
            return function(*given)

        monkeypatch.setattr(prepare, name, watched)

    for name in ("search_factors", "find_mul_ranges", "select_encodings"):
        watch(name)
    plan(even("v3-small"), calibration, QuantRecipe())
    judges = calibration.images[::6]
    assert len(shown) == 3
    for images in shown.values():
        assert len(images) == 20
        assert not (images[:, None] == judges).all((2, 3, 4)).any()


@pytest.mark.parametrize(
    ("rounding", "side", "count"),
    [("nearest", 32, 40), ("nearest", 224, 32), ("gptq", 224, 40)],
)
def test_nearest_weights_ask_for_some_images_spread_over_all(rounding, side, count, monkeypatch):
    planned = plan(even("v2"), networks.calibration(32), MINMAX)
    images = np.arange(40, dtype=np.float32)[:, None, None, None].repeat(side, axis=3)
    seen = []
    monkeypatch.setattr(
        prepare, "round_with_bias_correction", lambda *given, **_: seen.append(given[4]) or {}
    )
    prepare.round_parameters(planned, replace(MINMAX, rounding=rounding), images)
    (shown,) = seen
    assert len(shown) == count
    assert np.diff(shown[:, 0, 0, 0]).max() <= 2
    assert shown[-1, 0, 0, 0] >= 38


def test_ranges_are_searched_on_images_spread_over_all(monkeypatch):
    monkeypatch.setattr(prepare, "_MOST_SEARCHED", 12)
    calibration = networks.calibration(32, 48)
    searched = []
    search = prepare.search_factors
    monkeypatch.setattr(
        prepare, "search_factors", lambda *given: searched.append(given[-1]) or search(*given)
    )
    plan(even("v2"), calibration, QuantRecipe())
    (images,) = searched
    numbers = [int((calibration.images == one).all((1, 2, 3)).argmax()) for one in images]
    assert numbers == list(range(0, 48, 4))
