"""A network without ties has the same codes in every rounding mode; one with ties has not."""

import networks
import numpy as np
import pytest
import torch

from mobiledeploy.quantization import rounding_modes, weight_rounding
from mobiledeploy.quantization.integer_operators import Scaled
from mobiledeploy.quantization.integer_reference import IntegerReference, Rounding
from mobiledeploy.quantization.ptq import quantize
from mobiledeploy.quantization.rounding_modes import MODES, rounding_differences
from mobiledeploy.stages import QuantRecipe

STEP = torch.tensor(1.0)


def tied(zero_point=0):
    """Return a rounding of n / 2, where every odd n is half-way between two codes."""
    value = Scaled(torch.arange(-9.0, 10), torch.tensor(0.5))
    steps = value.values * 0.5
    return Rounding("quantize", value, Scaled(steps.round(), STEP), zero_point)


def test_each_mode_rounds_ties_its_own_way():
    value = Scaled(torch.tensor([-3.0, -1.0, 1.0, 3.0, 5.0]), torch.tensor(0.5))
    found = {name: mode(value, STEP).tolist() for name, mode in MODES.items()}
    assert found == {
        "half away from zero": [-2, -1, 1, 2, 3],
        "half up": [-1, 0, 1, 2, 3],
        "reciprocal of the scale": [-2, 0, 0, 2, 2],
        "31-bit fixed point": [-1, 0, 1, 2, 3],
    }


def test_fixed_point_multiplies_by_31_bits():
    ratio = torch.tensor(0.0123456789)
    values = torch.arange(-200_000.0, 200_000.0, 37)
    found = MODES["31-bit fixed point"](Scaled(values, ratio), STEP)
    exact = values.double() * float(ratio)
    away = (exact - exact.floor() - 0.5).abs() > 1e-5
    torch.testing.assert_close(found[away], exact.round()[away], rtol=0, atol=0)


def test_ties_are_found_and_counted():
    found = {each.mode: each.differing for each in rounding_differences([tied()])}
    # of the ten ties, half to even differs from half up at five
    assert found == {"half away from zero": 6, "half up": 5, "31-bit fixed point": 5}


def test_saturated_codes_do_not_differ():
    value = Scaled(torch.tensor([509.0, 513.0]), torch.tensor(0.5))
    rounding = Rounding("quantize", value, Scaled(torch.tensor([127.0, 127.0]), STEP), 0)
    assert rounding_differences([rounding]) == []


def test_the_modes_agree_where_they_are_not_tried():
    """All sums of a layer with 7 ratios: far from half-way, no mode gives another code.

    Nor does one beyond 512 steps, where every code is clamped.
    """
    sums = torch.arange(-300_000.0, 300_000.0).repeat(7, 1)
    ratios = torch.tensor([1.7e-3, 1.1e-3, 9e-4, 3.3e-4, 0.01, 0.37, 1e-5])[:, None]
    steps = sums * ratios
    value = Scaled(sums, ratios)
    assert rounding_modes._UNDECIDED >= 2**-12  # twice the largest error of a mode
    away = torch.ones_like(steps, dtype=torch.bool)
    codes = Scaled(steps.round().clamp(-255, 255), STEP)
    away[rounding_modes._undecided(Rounding("quantize", value, codes, 0))] = False
    assert away.float().mean() > 0.3
    assert steps[away].abs().max() > 100_000
    expected = steps.double().round().clamp(-255, 255)[away]
    for mode in MODES.values():
        codes = mode(value, STEP).clamp(-255, 255)[away]
        torch.testing.assert_close(codes, expected, rtol=0, atol=0)


def test_numbers_near_half_way_are_found_in_any_layout():
    values = torch.arange(2 * 3 * 5 * 7.0).reshape(2, 3, 5, 7)
    ratio = torch.tensor([0.5, 0.25, 0.125]).view(3, 1, 1)
    for layout in (torch.contiguous_format, torch.channels_last):
        value = Scaled(values.contiguous(memory_format=layout), ratio)
        codes = Scaled((value.values * ratio).round(), STEP)
        found = rounding_modes._undecided(Rounding("quantize", value, codes, 0))
        expected = torch.nonzero((value.values * ratio) % 1 == 0.5)
        assert sorted(torch.stack(found, 1).tolist()) == expected.tolist()


@pytest.mark.parametrize(("family", "resolution"), [("v1", 32), ("v2", 32), ("v3-small", 64)])
def test_no_code_of_a_quantized_network_depends_on_the_mode(family, resolution):
    reference = IntegerReference(networks.quantized(family, resolution, short=True))
    images = networks.pixels(resolution, count=4, seed=3)
    roundings = reference.roundings(images)
    assert len(roundings) > 8
    assert rounding_differences(roundings) == []
    exact = reference.run({"input": images})["logits"]
    np.testing.assert_array_equal(reference.run_in_float({"input": images})["logits"], exact)


def with_ties(monkeypatch, family="v2"):
    """Return a network whose requantization ratios are powers of two."""

    def powers_of_two(ratios, _steps):
        return 2.0 ** np.rint(np.log2(ratios))

    monkeypatch.setattr(weight_rounding, "tie_free_ratios", powers_of_two)
    monkeypatch.setattr("mobiledeploy.quantization.margin.float32_error", lambda _steps: -1.0)
    recipe = QuantRecipe(equalization="cross-layer", rounding="nearest")
    return quantize(networks.equalized(family, short=True), networks.calibration(32), recipe)


def test_planted_ties_are_found(monkeypatch):
    model = with_ties(monkeypatch)
    assert model.margin.steps == 0
    reference = IntegerReference(model)
    found = rounding_differences(reference.roundings(networks.pixels(32, count=4, seed=3)))
    assert {each.mode for each in found} >= {"half away from zero", "half up"}
