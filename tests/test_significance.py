"""Intervals and tests against published figures, and against figures that must not pass."""

import math

import numpy as np
import pytest
import scipy

from mobiledeploy.errors import DataError, GateError
from mobiledeploy.metrics import sqnr_db
from mobiledeploy.significance import (
    bootstrap_interval,
    mean_interval,
    one_sided_sign_test,
    sign_test,
    wilson_interval,
)


def random_logits(samples=20, classes=10, seed=0):
    return np.random.default_rng(seed).normal(size=(samples, classes)).astype(np.float32)


def test_wilson_interval_matches_the_published_example():
    # 81 of 263, 95%: Newcombe 1998, "Two-sided confidence intervals for the single proportion",
    # table I, method 3.
    low, high = wilson_interval(81, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)


@pytest.mark.parametrize("samples", [1, 2, 7, 32, 1000])
def test_the_figures_are_those_of_scipy(samples):
    for successes in {0, 1, samples // 2, samples - 1, samples}:
        failures = samples - successes
        test = scipy.stats.binomtest(successes, samples)
        expected = test.proportion_ci(0.95, method="wilson")
        assert wilson_interval(successes, samples) == pytest.approx(tuple(expected), abs=1e-9)
        assert sign_test(successes, failures) == pytest.approx(test.pvalue)
        greater = scipy.stats.binomtest(successes, samples, alternative="greater")
        assert one_sided_sign_test(successes, failures) == pytest.approx(greater.pvalue)


def test_wilson_interval_does_not_vanish_at_the_ends():
    low, high = wilson_interval(200, 200)
    assert high == 1
    assert low == pytest.approx(0.9812, abs=1e-4)
    low, high = wilson_interval(0, 20)
    assert low == pytest.approx(0)
    assert high == pytest.approx(0.1611, abs=1e-4)


@pytest.mark.parametrize(("successes", "samples"), [(0, 0), (3, 2), (-1, 2)])
def test_wilson_interval_of_an_impossible_share_raises(successes, samples):
    with pytest.raises(DataError, match="is not a share"):
        wilson_interval(successes, samples)


@pytest.mark.parametrize("confidence", [0, 1, 95])
def test_a_confidence_outside_of_zero_to_one_raises(confidence):
    with pytest.raises(DataError, match="expected a number between 0 and 1"):
        wilson_interval(1, 2, confidence=confidence)


def test_bootstrap_interval_covers_the_figure_and_is_seeded():
    reference = random_logits(samples=100)
    candidate = reference + 0.1 * random_logits(samples=100, seed=1)
    first = bootstrap_interval(sqnr_db, reference, candidate, resamples=200)
    assert first == bootstrap_interval(sqnr_db, reference, candidate, resamples=200)
    assert first != bootstrap_interval(sqnr_db, reference, candidate, resamples=200, seed=1)
    low, high = first
    assert low < sqnr_db(reference, candidate) < high
    assert high - low < 2


def test_bootstrap_interval_keeps_pairs_together():
    same = random_logits()
    assert bootstrap_interval(sqnr_db, same, same, resamples=20) == (
        math.inf,
        math.inf,
    )


def test_bootstrap_interval_widens_with_confidence():
    reference, candidate = random_logits(samples=50), random_logits(samples=50, seed=1)
    narrow = bootstrap_interval(sqnr_db, reference, candidate, confidence=0.5)
    wide = bootstrap_interval(sqnr_db, reference, candidate, confidence=0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_the_interval_of_a_mean_covers_it_and_is_seeded():
    values = np.random.default_rng(0).choice([0.8, 1.0], 200)
    low, high = mean_interval(values)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(200), rel=0.15)
    assert mean_interval(values) == (low, high)
    assert mean_interval(values, confidence=0.5)[0] > low
    assert mean_interval(np.ones(5)) == (1, 1)
    with pytest.raises(DataError, match="Nothing was compared"):
        mean_interval(np.ones(0))


@pytest.mark.parametrize(
    ("wins", "chance"),
    [((0, 0), 1), ((5, 5), 1), ((0, 5), 2 / 32), ((5, 0), 2 / 32), ((1, 9), 22 / 1024)],
)
def test_the_sign_test_is_the_binomial_one(wins, chance):
    assert sign_test(*wins) == pytest.approx(chance)


def test_a_bootstrap_of_nothing_unlike_or_nan_logits_raises():
    with pytest.raises(DataError, match="Nothing was compared"):
        bootstrap_interval(sqnr_db, np.zeros((0, 5)), np.zeros((0, 5)))
    with pytest.raises(DataError, match="different shapes"):
        bootstrap_interval(sqnr_db, random_logits(), random_logits(samples=1))
    with pytest.raises(GateError, match="of the candidate"):
        bootstrap_interval(sqnr_db, random_logits(), np.full((20, 10), math.nan))
