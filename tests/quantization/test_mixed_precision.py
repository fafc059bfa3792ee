"""Layers are kept in float by number, by name, or as few as reach an SQNR."""

import functools

import networks
import pytest
import torch

from mobiledeploy.errors import GateError, UsageError
from mobiledeploy.quantization import mixed_precision
from mobiledeploy.quantization.make_plan import make_plan
from mobiledeploy.quantization.mixed_precision import MixedPrecision, choose_float_layers
from mobiledeploy.quantization.ptq import quantize
from mobiledeploy.quantization.round_layers import round_layers
from mobiledeploy.quantization.sensitivity import measure_layers, measure_sqnr, rank_by_noise
from mobiledeploy.stages import RECIPES

CALIBRATION = networks.calibration(32)
FAST = RECIPES["fast"]


@functools.cache
def plan():
    return make_plan(networks.equalized("v2", short=True), CALIBRATION, FAST)


@functools.cache
def rounded_alone():
    return round_layers(plan(), FAST, CALIBRATION.images, alone=True)


@functools.cache
def ranked():
    return rank_by_noise(plan(), rounded_alone(), CALIBRATION.images)


def order():
    return [op.layer for op in plan().layers]


def chosen(**request):
    return choose_float_layers(plan(), FAST, CALIBRATION, MixedPrecision(**request))


def sqnr_of(kept):
    """Return the SQNR with these layers in float and the others rounded together."""
    mixed = plan().with_float_layers(kept)
    rounded = round_layers(plan(), FAST, CALIBRATION.images)
    rounded |= round_layers(mixed, FAST, CALIBRATION.images)
    return measure_sqnr(mixed, rounded, CALIBRATION.images, [mixed.float_ops])[0]


def test_the_ranking_is_the_order_of_sensitivity():
    rounded = round_layers(plan(), FAST, CALIBRATION.images)
    _, layers = measure_layers(plan(), rounded, rounded_alone(), CALIBRATION.images)
    assert [layer.name for layer in layers] == ranked()


def test_a_count_keeps_the_noisiest_layers_in_the_networks_order():
    kept = chosen(count=3)
    assert set(kept) == set(ranked()[:3])
    assert list(kept) == sorted(kept, key=order().index)


def test_layers_are_ranked_with_weights_that_are_rounded_alone(monkeypatch):
    used = []
    monkeypatch.setattr(
        mixed_precision, "rank_by_noise", lambda *args: used.append(args[1]) or order()
    )
    chosen(count=1)
    (weights,) = used
    together = round_layers(plan(), FAST, CALIBRATION.images)
    alone = rounded_alone()
    assert all(torch.equal(weights[name].bias, alone[name].bias) for name in alone)
    assert not all(torch.equal(together[name].bias, alone[name].bias) for name in alone)


def test_names_come_once_and_in_the_networks_order():
    assert chosen(names=("classifier.1", "features.0.0", "classifier.1")) == (
        "features.0.0",
        "classifier.1",
    )


def test_an_sqnr_is_reached_without_unnecessary_layers():
    least_db = sqnr_of(()) + 5.5
    kept = chosen(min_sqnr_db=least_db)
    assert sqnr_of(kept) >= least_db
    assert 0 < len(kept) < len(order()) - 1
    for name in kept[:-1]:
        fewer = plan().with_float_layers([n for n in kept if n != name]).float_ops
        if name != ranked()[len(kept) - 1]:
            (found,) = measure_sqnr(plan(), rounded_alone(), CALIBRATION.images, [fewer])
            assert found < least_db + 0.1


def test_the_chosen_layers_are_measured_again_with_the_others_rounded_together():
    """Measured alone, three layers suffice; rounded together, they fall short."""
    least_db = sqnr_of(()) + 5.8
    kept = chosen(min_sqnr_db=least_db)
    assert sqnr_of(ranked()[:3]) < least_db + mixed_precision._MARGIN_DB <= sqnr_of(kept)


def test_layers_that_prove_unnecessary_stay_int8():
    kept = chosen(min_sqnr_db=sqnr_of(()) + 6.5)
    assert len(kept) == 5
    assert set(kept) < set(ranked()[:6])


def test_an_sqnr_that_int8_reaches_keeps_no_layer():
    assert chosen(min_sqnr_db=sqnr_of(()) - 1) == ()


def test_an_sqnr_out_of_reach_fails_with_the_sqnr_that_was_reached():
    with pytest.raises(
        GateError, match=r"Even with 10 layers in float the logits reach \d+\.\d dB"
    ):
        chosen(min_sqnr_db=200)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"float_layers": ("features.0.1",)}, r"no layer 'features\.0\.1'"),
        ({"rounding": "learned", "float_layers": ("features.0.0",)}, "--ptq best"),
    ],
)
def test_layers_that_cannot_be_kept_are_refused(fields, message):
    model = networks.equalized("v2", short=True)
    with pytest.raises(UsageError, match=message):
        quantize(model, CALIBRATION, networks.recipe_for(model, **fields))


def test_one_layer_has_to_be_int8():
    model = networks.equalized("v2", short=True)
    recipe = networks.recipe_for(model, range_rule="minmax", float_layers=tuple(order()))
    with pytest.raises(UsageError, match="nothing is left for int8"):
        quantize(model, CALIBRATION, recipe)
    with pytest.raises(UsageError, match="the network has 11"):
        chosen(count=11)
