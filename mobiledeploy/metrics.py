"""How far a candidate's logits are from a reference's.

Reference first, candidate second; both (N, classes), compared in float64. Nothing can be said about
nothing: an empty comparison, unlike shapes and NaN or infinite logits raise instead of returning a
figure that a gate could mistake for a good one.

    name                       perfect   better is
    sqnr_db                    inf       higher
    top1_agreement, topk_...   1         higher
    top1_accuracy              1         higher
    cosine_similarity          1         higher
    differing_logits           0         lower
    max_steps_apart, mean_...  0         lower
    max_abs_difference, ...    0         lower
    kl_divergence              0         lower
    worst_flip_margin          0         lower
    margin_weighted_flips      0         lower
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any

import numpy as np

from mobiledeploy.errors import DataError, GateError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Logits = NDArray[Any]
    Metric = Callable[[Logits, Logits], float]


def sqnr_db(reference: Logits, candidate: Logits) -> float:
    """Return the signal-to-quantization-noise ratio in dB; higher is better, inf when equal.

    10 log10(sum(reference^2) / sum((reference - candidate)^2)), over all logits of all samples.
    """
    reference, candidate = _checked(reference, candidate)
    noise = float(np.square(reference - candidate).sum())
    signal = float(np.square(reference).sum())
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def top1_agreement(reference: Logits, candidate: Logits) -> float:
    """Return the share of samples whose largest logit is of the same class; higher is better.

    Among equal logits the first class counts, on both sides.
    """
    reference, candidate = _checked(reference, candidate)
    return float(np.mean(reference.argmax(axis=1) == candidate.argmax(axis=1)))


def topk_agreement(reference: Logits, candidate: Logits, k: int = 5) -> float:
    """Return the mean share of the reference's k first classes that are among the candidate's.

    Order within the k does not count; higher is better.
    """
    return float(topk_shares(reference, candidate, k).mean())


def topk_shares(reference: Logits, candidate: Logits, k: int = 5) -> NDArray[np.float64]:
    """Return for every sample the share that `topk_agreement` is the mean of, (N,)."""
    reference, candidate = _checked(reference, candidate)
    if not 1 <= k <= reference.shape[1]:
        raise DataError(f"There is no top {k} of {reference.shape[1]} classes.")
    kept = [
        len(np.intersect1d(r, c))
        for r, c in zip(_top(reference, k), _top(candidate, k), strict=True)
    ]
    return np.array(kept) / k


def top1_accuracy(logits: Logits, labels: Sequence[int]) -> float:
    """Return the share of samples whose largest logit is that of the label; higher is better.

    Raises:
        DataError: no samples, or not one label per sample, or a label outside the classes.
    """
    logits, _ = _checked(logits, logits)
    truth = np.asarray(labels)
    if truth.shape != (len(logits),):
        raise DataError(f"{len(logits)} samples came with labels of shape {truth.shape}.")
    if truth.min() < 0 or truth.max() >= logits.shape[1]:
        raise DataError(
            f"Labels reach from {truth.min()} to {truth.max()}; "
            f"the network has classes 0 to {logits.shape[1] - 1}.",
            remedy="Check that the labels belong to this network.",
        )
    return float(np.mean(logits.argmax(axis=1) == truth))


def differing_logits(reference: Logits, candidate: Logits) -> int:
    """Return how many logits are not exactly equal; lower is better."""
    reference, candidate = _checked(reference, candidate)
    return int(np.count_nonzero(reference != candidate))


def max_steps_apart(reference: Logits, candidate: Logits, step: float) -> float:
    """Return the largest difference in units of the output's scale; lower is better.

    `step` is the scale with which the logits are quantized, > 0. For two encodings of one int8
    network the result is a whole number but for float rounding.
    """
    return max_abs_difference(reference, candidate) / _positive(step)


def mean_steps_apart(reference: Logits, candidate: Logits, step: float) -> float:
    """Return the mean absolute difference in units of the output's scale; lower is better."""
    return mean_abs_difference(reference, candidate) / _positive(step)


def max_abs_difference(reference: Logits, candidate: Logits) -> float:
    """Return the largest absolute difference; lower is better."""
    reference, candidate = _checked(reference, candidate)
    return float(np.abs(reference - candidate).max())


def mean_abs_difference(reference: Logits, candidate: Logits) -> float:
    """Return the mean absolute difference; lower is better."""
    reference, candidate = _checked(reference, candidate)
    return float(np.abs(reference - candidate).mean())


def cosine_similarity(reference: Logits, candidate: Logits) -> float:
    """Return the cosine of the angle between the two, over all logits; higher is better.

    Blind to a wrong scale by construction: never a gate of its own.

    Raises:
        DataError: one of them is all zeros, which has no direction.
    """
    reference, candidate = _checked(reference, candidate)
    lengths = float(np.linalg.norm(reference) * np.linalg.norm(candidate))
    if lengths == 0:
        raise DataError("All logits are zero: there is no direction to compare.")
    return float(np.vdot(reference, candidate)) / lengths


def kl_divergence(reference: Logits, candidate: Logits) -> float:
    """Return the mean KL divergence of the candidate's softmax from the reference's, in nats.

    sum_i p_i (log p_i - log q_i), p from the reference; lower is better.
    """
    reference, candidate = _checked(reference, candidate)
    log_p, log_q = _log_softmax(reference), _log_softmax(candidate)
    return float((np.exp(log_p) * (log_p - log_q)).sum(axis=1).mean())


def flip_margins(reference: Logits, candidate: Logits) -> NDArray[np.float64]:
    """Return the reference's margin of every sample whose top-1 class changed.

    The margin is how far the reference's first class was above the class that the candidate
    prefers. A flip at 0.01 is a coin toss that fell differently; one at 5 is a bug.

    Returns:
        float64 (flips,), in logits, largest first; empty where nothing flipped.
    """
    reference, candidate = _checked(reference, candidate)
    rows = np.arange(len(reference))
    first, preferred = reference.argmax(axis=1), candidate.argmax(axis=1)
    margins = reference[rows, first] - reference[rows, preferred]
    return np.sort(margins[first != preferred])[::-1]


def worst_flip_margin(reference: Logits, candidate: Logits) -> float:
    """Return the largest of `flip_margins`, 0 where nothing flipped; lower is better."""
    return float(max(flip_margins(reference, candidate), default=0.0))


def margin_weighted_flips(reference: Logits, candidate: Logits) -> float:
    """Return the sum of `flip_margins` over the number of samples, in logits; lower is better.

    The mean regret: how much of the reference's logit is given up, per sample, by following the
    candidate's choice.
    """
    return float(flip_margins(reference, candidate).sum() / len(reference))


def wilson_interval(successes: int, samples: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of a share, such as agreement or accuracy.

    Unlike the normal approximation it stays within [0, 1] and does not shrink to nothing at 0
    or 1 (Wilson 1927, "Probable inference, the law of succession, and statistical inference").
    """
    if not 0 <= successes <= samples or samples == 0:
        raise DataError(f"{successes} of {samples} is not a share.")
    z = statistics.NormalDist().inv_cdf(_confidence(confidence) / 2 + 0.5)
    share = successes / samples
    centre = share + z * z / (2 * samples)
    spread = z * math.sqrt(share * (1 - share) / samples + z * z / (4 * samples * samples))
    scale = 1 + z * z / samples
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def mean_interval(
    values: NDArray[np.float64], *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a mean over samples, values (N,)."""
    if values.size == 0:
        raise DataError("Nothing was compared: there are no values.")
    tail = (1 - _confidence(confidence)) / 2
    random = np.random.default_rng(seed)
    means = values[random.integers(0, len(values), (resamples, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def sign_test(first: int, second: int) -> float:
    """Return how likely so uneven a division of wins is where both sides are equally good.

    The exact two-sided binomial test at 1/2; ties do not count. On images that only one of two
    networks gets right it is McNemar's (1947, "Note on the sampling error of the difference between
    correlated proportions or percentages").
    """
    wins, least = first + second, min(first, second)
    tail: float = sum(math.comb(wins, k) for k in range(least + 1)) / 2**wins
    return min(1.0, 2 * tail)


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

    For metrics that are no shares, such as SQNR. Samples are drawn with replacement; a reference
    and its candidate stay together (Efron 1979, "Bootstrap methods: another look at the
    jackknife").
    """
    reference, candidate = _checked(reference, candidate)
    tail = (1 - _confidence(confidence)) / 2
    random = np.random.default_rng(seed)
    draws = random.integers(0, len(reference), size=(resamples, len(reference)))
    values = np.array([metric(reference[draw], candidate[draw]) for draw in draws])
    # "lower" and "higher" do not interpolate: metrics may be infinite.
    low = np.quantile(values, tail, method="lower")
    high = np.quantile(values, 1 - tail, method="higher")
    return float(low), float(high)


def _checked(
    reference: Logits, candidate: Logits
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return both in float64, or raise because they cannot be compared."""
    if reference.shape != candidate.shape:
        raise DataError(
            f"Logits of unlike shapes cannot be compared: reference {reference.shape}, "
            f"candidate {candidate.shape}.",
            remedy="Check that both come from the same images and from networks of equal classes.",
        )
    if reference.ndim != 2:
        raise DataError(f"Expected logits of shape (N, classes), found {reference.shape}.")
    if reference.size == 0:
        raise DataError(
            f"Nothing was compared: logits of shape {reference.shape}.",
            remedy="Pass at least one sample.",
        )
    for name, logits in (("reference", reference), ("candidate", candidate)):
        bad = int(np.count_nonzero(~np.isfinite(logits)))
        if bad:
            raise GateError(f"{bad} of {logits.size} logits of the {name} are NaN or infinite.")
    return reference.astype(np.float64), candidate.astype(np.float64)


def _top(logits: NDArray[np.float64], k: int) -> NDArray[np.intp]:
    """Return the k first classes per sample, the lower class first among equals."""
    return np.argsort(-logits, axis=1, kind="stable")[:, :k]


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    normalised: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return normalised


def _positive(step: float) -> float:
    if not (step > 0 and math.isfinite(step)):
        raise DataError(f"An output step of {step} is no unit; expected a scale above 0.")
    return step


def _confidence(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise DataError(f"A confidence of {confidence} is not between 0 and 1.")
    return confidence
