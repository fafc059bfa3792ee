"""Which layers are kept in float: by number, by name, or as few as reach an SQNR."""

import functools

import networks
import pytest
import torch

from mobiledeploy.errors import GateError, UsageError
from mobiledeploy.network import RECIPES, QuantRecipe
from mobiledeploy.quantization import mixed_precision as keep_float
from mobiledeploy.quantization.float_layers import float_ops, layer_name
from mobiledeploy.quantization.mixed_precision import MixedPrecision, choose_float_layers
from mobiledeploy.quantization.plan import plan, round_parameters
from mobiledeploy.quantization.ptq import quantize
from mobiledeploy.quantization.sensitivity import measure_layers, noisiest_first, sqnrs_db

CALIBRATION = networks.calibration(32)
FAST = RECIPES["fast"]


@functools.cache
def planned():
    return plan(networks.equalized("v2", short=True), CALIBRATION, FAST)


@functools.cache
def ranked():
    alone = round_parameters(planned(), FAST, CALIBRATION.images, alone=True)
    return noisiest_first(planned(), alone, CALIBRATION.images)


def order():
    return [layer_name(op) for op in planned().ops if op.has_weight]


def chosen(**demand):
    return choose_float_layers(planned(), FAST, CALIBRATION, MixedPrecision(**demand))


def reached(kept):
    floating = float_ops(planned().ops, kept)
    rounded = round_parameters(planned(), FAST, CALIBRATION.images)
    rounded |= round_parameters(planned(), FAST, CALIBRATION.images, floating)
    return sqnrs_db(planned(), rounded, CALIBRATION.images, [floating])[0]


def test_the_ranking_is_the_one_that_sensitivity_prints():
    rounded = round_parameters(planned(), FAST, CALIBRATION.images)
    alone = round_parameters(planned(), FAST, CALIBRATION.images, alone=True)
    _, layers = measure_layers(planned(), rounded, alone, CALIBRATION.images)
    assert [layer.name for layer in layers] == ranked()


def test_so_many_are_the_noisiest_in_the_networks_order():
    kept = chosen(count=3)
    assert set(kept) == set(ranked()[:3])
    assert list(kept) == sorted(kept, key=order().index)


def test_layers_are_ranked_with_what_each_is_alone(monkeypatch):
    asked = []
    monkeypatch.setattr(
        keep_float, "noisiest_first", lambda *given: asked.append(given[1]) or order()
    )
    chosen(count=1)
    (parameters,) = asked
    alone = round_parameters(planned(), FAST, CALIBRATION.images, alone=True)
    together = round_parameters(planned(), FAST, CALIBRATION.images)
    assert all(torch.equal(parameters[name].bias, alone[name].bias) for name in alone)
    assert not all(torch.equal(together[name].bias, alone[name].bias) for name in alone)


def test_names_come_in_the_networks_order_and_once():
    assert chosen(names=("classifier.1", "features.0.0", "classifier.1")) == (
        "features.0.0",
        "classifier.1",
    )


def test_an_sqnr_is_reached_with_no_layer_too_many():
    before = reached(())
    demanded = before + 1.5
    kept = chosen(min_sqnr_db=demanded)
    assert reached(kept) >= demanded
    assert 0 < len(kept) < len(order()) - 1
    everything = round_parameters(planned(), FAST, CALIBRATION.images, alone=True)
    for name in kept[:-1]:
        fewer = float_ops(planned().ops, [n for n in kept if n != name])
        if name != ranked()[len(kept) - 1]:
            assert sqnrs_db(planned(), everything, CALIBRATION.images, [fewer])[0] < demanded + 0.1


def test_what_was_chosen_is_rounded_anew_and_measured_again():
    """Chosen by what each layer is alone: together with the others' rounding three fall short."""
    demanded = reached(()) + 3.5
    kept = chosen(min_sqnr_db=demanded)
    assert reached(ranked()[:3]) < demanded + keep_float._MARGIN_DB <= reached(kept)


def test_layers_that_turn_out_not_to_be_needed_stay_int8():
    kept = chosen(min_sqnr_db=reached(()) + 5.75)
    assert len(kept) == 5
    assert set(kept) < set(ranked()[:6])


def test_an_sqnr_that_int8_reaches_needs_no_layer():
    assert chosen(min_sqnr_db=reached(()) - 1) == ()


def test_an_sqnr_that_nothing_reaches_fails_and_says_what_was_reached():
    with pytest.raises(
        GateError, match=r"Even with 10 layers in float the logits reach \d+\.\d dB"
    ):
        chosen(min_sqnr_db=200)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (QuantRecipe(float_layers=("features.0.1",)), r"no layer 'features\.0\.1'"),
        (QuantRecipe(rounding="learned", float_layers=("features.0.0",)), "--ptq best"),
    ],
)
def test_what_cannot_be_kept_is_told(recipe, message):
    with pytest.raises(UsageError, match=message):
        quantize(networks.equalized("v2", short=True), CALIBRATION, recipe)


def test_one_layer_has_to_be_int8():
    with pytest.raises(UsageError, match="nothing is left for int8"):
        quantize(
            networks.equalized("v2", short=True),
            CALIBRATION,
            QuantRecipe(range_rule="minmax", float_layers=tuple(order())),
        )
    with pytest.raises(UsageError, match="the network has 11"):
        chosen(count=11)


@pytest.mark.parametrize(
    ("keep_float", "min_sqnr_db", "demand"),
    [
        (None, None, None),
        ("2", None, MixedPrecision(count=2)),
        ("a.b, c", None, MixedPrecision(names=("a.b", "c"))),
        (None, 20.0, MixedPrecision(min_sqnr_db=20.0)),
    ],
)
def test_options_become_a_demand(keep_float, min_sqnr_db, demand):
    assert MixedPrecision.parse(keep_float, min_sqnr_db) == demand


@pytest.mark.parametrize(
    ("keep_float", "min_sqnr_db"), [("0", None), ("-1", None), (",", None), ("2", 20.0)]
)
def test_options_that_make_no_sense_are_refused(keep_float, min_sqnr_db):
    with pytest.raises(UsageError):
        MixedPrecision.parse(keep_float, min_sqnr_db)
