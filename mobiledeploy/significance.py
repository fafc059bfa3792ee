"""How certain figures are: confidence intervals, and sign tests of paired comparisons.

Only `scipy.special` is used: `scipy.stats` would take a second to import.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy

from mobiledeploy.errors import DataError
from mobiledeploy.metrics import checked_logits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Logits = NDArray[Any]
    Metric = Callable[[Logits, Logits], float]


def wilson_interval(successes: int, samples: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of a share, such as agreement or accuracy.

    Unlike the normal approximation it stays within [0, 1] and keeps a width at shares of 0 and 1
    (Wilson 1927, "Probable inference, the law of succession, and statistical inference").

    Raises:
        DataError: no samples, or successes outside 0 to samples.
    """
    if not 0 <= successes <= samples or samples == 0:
        raise DataError(f"{successes} of {samples} is not a share.")
    z = statistics.NormalDist().inv_cdf((1 + _confidence(confidence)) / 2)
    share, weight = successes / samples, z**2 / samples
    middle = share + weight / 2
    half_width = math.sqrt(share * (1 - share) * weight + weight**2 / 4)
    low, high = (middle - half_width) / (1 + weight), (middle + half_width) / (1 + weight)
    # at shares of 0 and 1 the ends are exact but for rounding
    return (low if successes else 0.0), (high if successes < samples else 1.0)


def sign_test(wins: int, losses: int) -> float:
    """Return the two-sided p-value of so uneven a split of wins if both sides were equally good.

    The exact binomial test at 1/2; ties are left out. On images that only one of two networks
    classifies correctly it is McNemar's test (1947, "Note on the sampling error of the difference
    between correlated proportions or percentages").
    """
    return min(1.0, 2 * one_sided_sign_test(max(wins, losses), min(wins, losses)))


def one_sided_sign_test(wins: int, losses: int) -> float:
    """Return the p-value of at least so many wins if both sides were equally good."""
    if wins == 0:
        return 1.0
    return float(scipy.special.bdtrc(wins - 1, wins + losses, 0.5))


def median_interval(
    values: Sequence[float], confidence: float = 0.95
) -> tuple[float, float, float]:
    """Return the median of values between the ends of its confidence interval.

    The interval comes from order statistics and assumes no distribution: the number of values below
    the true median is binomial(N, 1/2) (David and Nagaraja, "Order Statistics", section 7.1). With
    fewer than 6 values it is their whole range, which has less than 95% confidence.

    Returns:
        Lower end, median, upper end.
    """
    ordered = sorted(values)
    tail = (1 - _confidence(confidence)) / 2
    # bdtrik inverts the distribution
    rank = max(1, math.ceil(scipy.special.bdtrik(tail, len(ordered), 0.5)))
    return ordered[rank - 1], statistics.median(ordered), ordered[-rank]


def mean_interval(
    values: NDArray[np.float64], *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean of values, (N,)."""
    if values.size == 0:
        raise DataError("Nothing was compared: there are no values.")
    draws = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    tail = (1 - _confidence(confidence)) / 2
    low, high = np.quantile(values[draws].mean(axis=1), [tail, 1 - tail])
    return float(low), float(high)


def bootstrap_interval(
    metric: Metric,
    reference: Logits,
    candidate: Logits,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a metric over samples.

    For metrics that are not shares, such as SQNR. Samples are drawn with replacement; a reference
    and its candidate stay together (Efron 1979, "Bootstrap methods: another look at the
    jackknife").
    """
    reference, candidate = checked_logits(reference, candidate)
    tail = (1 - _confidence(confidence)) / 2
    random = np.random.default_rng(seed)
    draws = random.integers(0, len(reference), size=(resamples, len(reference)))
    values = np.array([metric(reference[draw], candidate[draw]) for draw in draws])
    # "lower" and "higher" do not interpolate: between two infinite values that would give NaN
    low = np.quantile(values, tail, method="lower")
    high = np.quantile(values, 1 - tail, method="higher")
    return float(low), float(high)


def _confidence(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise DataError(f"The confidence is {confidence}; expected a number between 0 and 1.")
    return confidence
