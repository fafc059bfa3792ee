"""Statistics compared with results by hand, and warnings on both sides of their limits."""

import math

import pytest
from bench_results import measurement

from mobiledeploy.bench.stats import paired_ratio, slowed_down, warnings_for
from mobiledeploy.errors import UsageError
from mobiledeploy.significance import median_interval


def ratio(reference, candidate):
    return paired_ratio(measurement(times_ms=reference), measurement(times_ms=candidate))


def test_the_ratio_is_candidate_over_reference():
    found = ratio([1, 2, 4, 8, 16], [2, 2, 2, 2, 64])
    # Sorted: 0.25, 0.5, 1, 2, 4.
    assert (found.q1, found.median, found.q3) == (0.5, 1, 2)


def test_disturbances_of_both_cancel_in_the_ratio():
    slowdowns = [1, 1, 7, 1, 30, 2, 1, 1.5, 1, 9]
    found = ratio([3 * s for s in slowdowns], [6 * s for s in slowdowns])
    assert found.q1 == found.median == found.q3 == pytest.approx(2)


@pytest.mark.parametrize(
    ("count", "low", "high"),
    # Ranks from the table of David and Nagaraja's construction: 1-based 40 and 61 of 100,
    # 2 and 9 of 10; five values cannot give 95%, six can by their whole range.
    [(100, 40, 61), (10, 2, 9), (6, 1, 6), (5, 1, 5), (2, 1, 2)],
)
def test_the_interval_of_the_median_comes_from_order_statistics(count, low, high):
    found = ratio([1] * count, range(1, count + 1))
    assert (found.low, found.high) == (low, high)


@pytest.mark.parametrize("count", [*range(1, 60), 99, 1000, 2001, 4000])
def test_the_interval_is_that_of_the_exact_binomial_distribution(count):
    low, _, high = median_interval(range(1, count + 1))
    # The least rank at which more than 2.5% lie below, in integers: 1 / 40 of all 2 ** count.
    rank, below = 0, 1
    while 40 * below <= 2**count:
        rank += 1
        below += math.comb(count, rank)
    assert (low, high) == (max(1, rank), count + 1 - max(1, rank))


def test_the_interval_of_a_million_times_is_computed():
    """As the normal distribution has it, which is exact enough for so many: 1.96 times 500."""
    low, median, high = median_interval(range(1, 1_000_001))
    assert (low, median, high) == (499_020, 500_000.5, 500_981)


@pytest.mark.parametrize(
    ("candidate", "decided"),
    [([2] * 10, True), ([0.5] * 10, True), ([1] * 10, False), ([0.9, 1.1] * 5, False)],
)
def test_a_ratio_is_decided_if_its_interval_excludes_one(candidate, decided):
    assert ratio([1] * 10, candidate).decided is decided


def test_unequal_numbers_of_times_are_an_error():
    with pytest.raises(UsageError, match="3 and 2 times cannot be paired"):
        ratio([1, 2, 3], [1, 2])


def steady(count=30, level=10.0):
    return [level + 0.01 * (index % 3) for index in range(count)]


def test_steady_times_cause_no_warning():
    assert warnings_for(steady(), threads=2, cores=2) == ()


@pytest.mark.parametrize(("spread", "noisy"), [(0.9, False), (1.1, True)])
def test_a_spread_above_10_percent_of_the_median_is_noise(spread, noisy):
    # The quartiles are at the outer levels, the median at the middle one, in every third.
    times = [10 - spread / 2, 10 - spread / 2, 10.0, 10 + spread / 2, 10 + spread / 2] * 6
    found = warnings_for(times, threads=1, cores=1)
    assert len(found) == noisy
    assert not noisy or "noisy: their interquartile range is 11%" in found[0]


def test_single_outliers_are_not_noise():
    times = steady(40)
    times[7] = times[23] = 500.0
    assert warnings_for(times, threads=1, cores=1) == ()


@pytest.mark.parametrize(("late", "drift"), [(10.4, ""), (10.6, "+6%"), (9.6, ""), (9.4, "-6%")])
def test_a_last_third_that_differs_by_more_than_5_percent_is_drift(late, drift):
    found = warnings_for([10.0] * 20 + [late] * 10, threads=1, cores=1)
    assert len(found) == bool(drift)
    assert not drift or f"drift: the last third differs by {drift}" in found[0]


def test_more_threads_than_cores_cause_a_warning():
    (found,) = warnings_for(steady(), threads=3, cores=2)
    assert "3 threads share 2 cores" in found


@pytest.mark.parametrize(("count", "few"), [(19, True), (20, False)])
def test_few_runs_cause_a_warning(count, few):
    found = warnings_for(steady(count), threads=1, cores=1)
    assert len(found) == few
    assert not few or found[0].startswith("There are only 19 runs (expected at least 20)")


def test_two_times_are_enough_for_warnings():
    assert warnings_for([10.0, 10.0], threads=1, cores=1)[0].startswith("There are only 2 runs")


def conditions(before=None, after=None):
    cool = {"throttle_count": None, "throttled_now": None, "frequency_mhz": None}
    return {"before": cool | (before or {}), "after": cool | (after or {})}


def test_missing_or_constant_conditions_cause_no_warning():
    assert slowed_down([conditions(), conditions()]) == ()
    same = {"throttle_count": 7, "throttled_now": 0, "frequency_mhz": 2400.0}
    assert slowed_down([conditions(same, same)]) == ()


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ({"throttle_count": 7}, {"throttle_count": 9}, "throttled 2 times"),
        ({"throttled_now": 0}, {"throttled_now": 5}, "get_throttled: 0x5"),
        ({"frequency_mhz": 2400.0}, {"frequency_mhz": 1500.0}, "fell to 62%"),
        ({"frequency_mhz": 2400.0}, {"frequency_mhz": 2100.0}, "fell to 88%"),
    ],
)
def test_throttling_is_detected_from_any_source(before, after, message):
    [warning] = slowed_down([conditions(), conditions(before, after)])
    assert message in warning


def test_a_rising_or_slightly_falling_frequency_is_no_throttling():
    falling = conditions({"frequency_mhz": 2400.0}, {"frequency_mhz": 2200.0})
    rising = conditions({"frequency_mhz": 600.0}, {"frequency_mhz": 2400.0})
    assert slowed_down([falling, rising]) == ()
