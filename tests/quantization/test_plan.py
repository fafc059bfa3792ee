"""A plan takes searched or learned ranges, and shows the hold-out images to neither."""

import itertools
from dataclasses import replace

import networks
import pytest

from mobiledeploy.quantization import make_plan as plan_module
from mobiledeploy.quantization.learned_equalization import learn_equalization
from mobiledeploy.quantization.make_plan import make_plan
from mobiledeploy.stages import QuantRecipe

MINMAX = QuantRecipe(range_rule="minmax")


def equalized(family):
    return networks.equalized(family, short=True)


def learned(family, images):
    return learn_equalization(equalized(family), images)


def test_learned_ranges_are_taken_if_they_are_selected(monkeypatch):
    images = networks.calibration(32)
    model = learned("v2", images)
    monkeypatch.setattr(plan_module, "_LEAST_FOR_HOLD_OUT", images.count)
    chosen = {}
    for index in (0, 1):
        monkeypatch.setattr(
            plan_module, "select_encodings", lambda plans, *_, index=index: plans[index]
        )
        chosen[index] = make_plan(model, images, QuantRecipe()).encodings
    without = make_plan(replace(model, ranges={}), images, QuantRecipe()).encodings
    widest = make_plan(model, images, MINMAX).encodings  # nothing is selected
    monkeypatch.setattr(plan_module, "_LEAST_FOR_HOLD_OUT", images.count + 1)
    few = make_plan(model, images, QuantRecipe()).encodings  # nor here
    monkeypatch.undo()
    searched = make_plan(replace(model, ranges={}), images, QuantRecipe()).encodings
    assert few == searched
    assert chosen[0] == without  # both searched on the images that are not held out
    changed = {name for name in model.ranges if chosen[1][name] != without[name]}
    assert len(changed) > 0.5 * len(model.ranges)
    for name in changed:
        assert chosen[1][name].high == pytest.approx(model.ranges[name][1], rel=1e-6), name
    assert widest == make_plan(replace(model, ranges={}), images, MINMAX).encodings


@pytest.mark.parametrize(
    ("family", "has_learned", "count"),
    [("v2", False, 1), ("v2", True, 2), ("v3-small", False, 2), ("v3-small", True, 4)],
)
def test_candidates_are_learned_ranges_and_fitted_multiplications(
    family, has_learned, count, monkeypatch
):
    images = networks.calibration(32)
    model = learned(family, images) if has_learned else equalized(family)
    monkeypatch.setattr(plan_module, "_LEAST_FOR_HOLD_OUT", images.count)
    calls = []

    def select_last(candidates, *_):
        calls.append([candidate.encodings for candidate in candidates])
        return candidates[-1]

    monkeypatch.setattr(plan_module, "select_encodings", select_last)
    chosen = make_plan(model, images, QuantRecipe()).encodings
    if count == 1:
        assert not calls
        return
    (candidates,) = calls
    assert len(candidates) == count
    assert chosen == candidates[-1]
    assert all(one != other for one, other in itertools.combinations(candidates, 2))


def test_ranges_are_not_searched_on_hold_out_images(monkeypatch):
    calibration = networks.calibration(32, 24)
    monkeypatch.setattr(plan_module, "_LEAST_FOR_HOLD_OUT", 24)
    seen = {}

    def record_images(name):
        function = getattr(plan_module, name)

        def recorded(*args):
            seen[name] = args[-1]
            return function(*args)

        monkeypatch.setattr(plan_module, name, recorded)

    for name in ("search_factors", "probe_muls", "select_encodings"):
        record_images(name)
    make_plan(equalized("v3-small"), calibration, QuantRecipe())
    hold_out = calibration.images[::6]
    assert len(seen) == 3
    for images in seen.values():
        assert len(images) == 20
        assert not (images[:, None] == hold_out).all((2, 3, 4)).any()


def test_ranges_are_searched_on_evenly_spaced_images(monkeypatch):
    monkeypatch.setattr(plan_module, "_MOST_SEARCH_IMAGES", 12)
    calibration = networks.calibration(32, 48)
    searched = []
    search = plan_module.search_factors
    monkeypatch.setattr(
        plan_module, "search_factors", lambda *args: searched.append(args[-1]) or search(*args)
    )
    make_plan(equalized("v2"), calibration, QuantRecipe())
    (images,) = searched
    indices = [int((calibration.images == one).all((1, 2, 3)).argmax()) for one in images]
    assert indices == list(range(0, 48, 4))


def test_layers_in_float_are_no_int8_layers():
    plan = make_plan(equalized("v2"), networks.calibration(32), MINMAX)
    names = [op.layer for op in plan.layers]
    mixed = plan.with_float_layers(names[:1])
    assert [op.layer for op in mixed.int8_layers] == names[1:]
    assert plan.int8_layers == plan.layers == mixed.layers
