"""With an odd denominator no integer result is half-way between two codes."""

from fractions import Fraction

import numpy as np
import pytest

from mobiledeploy.quantization.tie_free import (
    TOLERANCE,
    float32_error,
    largest_denominator,
    margin_of,
    steps_of,
    tie_free_ratios,
)

STEPS = 255.5
RATIOS = np.geomspace(1e-6, 200, 500)


@pytest.mark.parametrize("d", range(1, 64, 2))
def test_no_sum_is_nearer_to_half_way_than_the_theorem_says(d):
    """All sums and all numerators: n * i / d repeats after d sums."""
    nearest = min(
        abs(Fraction(n * i, d) - (n * i // d) - Fraction(1, 2))
        for i in range(1, 2 * d)
        for n in range(-d, d + 1)
    )
    assert nearest == Fraction(1, 2 * d)


@pytest.mark.parametrize("d", range(2, 64, 2))
def test_an_even_denominator_has_ties(d):
    assert any(Fraction(n, d) - n // d == Fraction(1, 2) for n in range(d))


@pytest.mark.parametrize("steps", [128.5, 200.5, STEPS])
def test_ratios_move_little_and_are_odd_fractions(steps):
    found = tie_free_ratios(RATIOS, steps)
    for ratio, new in zip(RATIOS, found, strict=True):
        fraction = Fraction(new).limit_denominator(largest_denominator(steps))
        assert fraction.denominator % 2 == 1
        assert abs(float(fraction) - new) < 1e-15 * new
        wanted = max(ratio, 1 / largest_denominator(steps))
        assert abs(new / wanted - 1) <= TOLERANCE


def test_the_denominator_is_the_smallest_that_is_near_enough():
    (found,) = tie_free_ratios(np.array([0.25]), STEPS)
    fraction = Fraction(found).limit_denominator(largest_denominator(STEPS))
    smaller = range(1, fraction.denominator, 2)
    assert all(abs(round(0.25 * d) / d / 0.25 - 1) > TOLERANCE for d in smaller)


@pytest.mark.parametrize("zero_point", [-128, -77, 0, 127])
def test_the_margin_exceeds_what_float32_may_be_off_by(zero_point):
    steps = steps_of(zero_point)
    assert steps == max(-128 - zero_point, 127 - zero_point, 128 + zero_point) + 0.5
    scales = tie_free_ratios(RATIOS, steps).astype(np.float32)
    assert margin_of(scales, steps) > float32_error(steps)


def test_a_ratio_with_ties_has_no_margin():
    assert margin_of(np.array([1 / 3, 0.5]), STEPS) == 0
    assert margin_of(np.array([1 / 3]), STEPS) == pytest.approx(1 / 6, rel=1e-6)
    assert margin_of(np.array([1 / 3, 2 / 2001]), STEPS) == pytest.approx(1 / 4002, rel=1e-6)


def roundings(values):
    """Return the codes of float64 values in every rounding mode."""
    return (
        np.rint(values),  # half to even
        np.trunc(values + np.copysign(0.5, values)),  # half away from zero
        np.floor(values + 0.5),  # half up
        np.ceil(values - 0.5),  # half down
    )


SOME = np.array([0.00001, 0.0007, 0.004, 0.26, 1.7, 90])


@pytest.mark.parametrize("ratio", tie_free_ratios(SOME, STEPS))
def test_rounding_modes_and_fixed_point_multipliers_agree_on_every_sum(ratio):
    """All sums that give an int8 code, with the ratio in float32 and as a 31-bit multiplier."""
    most = int(256 / ratio) + 1
    sums = np.unique(np.linspace(-most, most, 200_001).astype(np.int64))
    exact = roundings(sums * ratio)[0]
    in_float32 = (sums.astype(np.float32) * np.float32(ratio)).astype(np.float64)
    for codes in (*roundings(sums * ratio), *roundings(in_float32)):
        np.testing.assert_array_equal(codes, exact)
    mantissa, exponent = np.frexp(ratio)
    multiplier, shift = int(np.rint(mantissa * 2**31)), 31 - int(exponent)
    fixed = [(int(n) * multiplier + (1 << (shift - 1))) >> shift for n in sums[::97]]
    np.testing.assert_array_equal(fixed, exact[::97])
