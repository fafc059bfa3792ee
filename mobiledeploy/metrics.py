"""Metrics of how far a candidate's logits are from a reference's.

Both arguments have shape (N, classes), reference first, and are compared in float64. An empty
comparison, unlike shapes, and NaN or infinite logits raise an error: they never give a figure that
a gate could take for a good one.

    name                                          perfect   better
    sqnr_db, output_sqnr_db                       inf       higher
    top1_agreement, topk_agreement                1         higher
    top1_accuracy                                 1         higher
    cosine_similarity, mean_cosine_similarity     1         higher
    differing_logits                              0         lower
    max_steps_apart, mean_steps_apart             0         lower
    max_abs_difference, mean_abs_difference       0         lower
    kl_divergence                                 0         lower
    worst_flip_margin, margin_weighted_flips      0         lower

SciPy loads its submodules on first use, so importing this module stays cheap.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy

from mobiledeploy.errors import DataError, GateError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Logits = NDArray[Any]


def sqnr_db(reference: Logits, candidate: Logits) -> float:
    """Return the signal-to-quantization-noise ratio in dB; higher is better, inf when equal.

    10 log10(sum((reference - mean)^2) / sum((reference - candidate)^2)), over all logits of all
    samples. `mean` is that of each output over the samples: a bias says nothing about an image, so
    it is no signal. The noise is the whole error.

    Raises:
        DataError: the reference is the same for all samples, or there is only one.
    """
    reference, candidate = checked_logits(reference, candidate)
    if not varies(reference):
        raise DataError(
            f"The reference is the same for all {len(reference)} samples: it has no signal.",
            remedy="Compare on two or more different images.",
        )
    return power_ratio_db(signal_power(reference), float(np.square(reference - candidate).sum()))


def signal_power(reference: Logits) -> float:
    """Return the sum of squares of what depends on the image: logits less each output's mean."""
    reference = reference.astype(np.float64)
    return float(np.square(reference - reference.mean(axis=0)).sum())


def varies(reference: Logits) -> bool:
    """Return whether any output differs between samples; without, there is no SQNR."""
    return bool((reference != reference[:1]).any())


def output_sqnr_db(reference: Logits, candidate: Logits) -> NDArray[np.float64]:
    """Return the SQNR of each output by itself, in dB; NaN for outputs that do not vary.

    Outputs with units of their own can hide one another in `sqnr_db`.

    Returns:
        (outputs,).
    """
    reference, candidate = checked_logits(reference, candidate)
    columns = zip(reference.T[:, :, None], candidate.T[:, :, None], strict=True)
    return np.array([sqnr_db(r, c) if varies(r) else math.nan for r, c in columns])


def power_ratio_db(signal: float, noise: float) -> float:
    """Return 10 log10(signal / noise), for sums of squares.

    Returns:
        +inf without noise, -inf with noise but no signal, NaN where either is NaN.
    """
    if noise == 0:
        return math.inf
    ratio = signal / noise
    if math.isnan(ratio):
        return math.nan
    return 10 * math.log10(ratio) if ratio > 0 else -math.inf


def top1_agreement(reference: Logits, candidate: Logits) -> float:
    """Return the share of samples with the same top-1 class; higher is better.

    Among equal logits the lowest class index is the top-1, on both sides.

    Raises:
        DataError: there is one output, which is the largest whatever it is.
    """
    reference, candidate = _classes(reference, candidate)
    return float(np.mean(reference.argmax(axis=1) == candidate.argmax(axis=1)))


def topk_agreement(reference: Logits, candidate: Logits, k: int = 5) -> float:
    """Return the mean share of the reference's top-k classes that are in the candidate's top k.

    The order within the k does not matter; higher is better.
    """
    return float(topk_shares(reference, candidate, k).mean())


def topk_shares(reference: Logits, candidate: Logits, k: int = 5) -> NDArray[np.float64]:
    """Return the share of kept top-k classes of each sample, (N,); its mean is `topk_agreement`.

    Raises:
        DataError: there is one output, or k is below 1 or above the number of classes.
    """
    reference, candidate = _classes(reference, candidate)
    if not 1 <= k <= reference.shape[1]:
        raise DataError(
            f"top {k} is undefined for {reference.shape[1]} classes; expected k from 1 to"
            f" {reference.shape[1]}."
        )
    kept = [
        len(np.intersect1d(r, c))
        for r, c in zip(_top(reference, k), _top(candidate, k), strict=True)
    ]
    return np.array(kept) / k


def top1_accuracy(logits: Logits, labels: Sequence[int]) -> float:
    """Return the share of samples whose top-1 class is the label; higher is better.

    Args:
        logits: (N, classes).
        labels: One class index per sample.

    Raises:
        DataError: no samples, one output, not one label per sample, or a label outside the classes.
    """
    logits, _ = _classes(logits, logits)
    truth = np.asarray(labels)
    if truth.shape != (len(logits),):
        raise DataError(f"Expected {len(logits)} labels, one per sample; found {truth.shape}.")
    if truth.min() < 0 or truth.max() >= logits.shape[1]:
        raise DataError(
            f"The labels range from {truth.min()} to {truth.max()}; "
            f"the network has classes 0 to {logits.shape[1] - 1}.",
            remedy="Check that the labels belong to this network.",
        )
    return float(np.mean(logits.argmax(axis=1) == truth))


def differing_logits(reference: Logits, candidate: Logits) -> int:
    """Return how many logits are not exactly equal; lower is better."""
    reference, candidate = checked_logits(reference, candidate)
    return int(np.count_nonzero(reference != candidate))


def max_steps_apart(reference: Logits, candidate: Logits, step: float) -> float:
    """Return the largest difference in units of the output's scale; lower is better.

    Between two implementations of one int8 network the result is a whole number, but for float
    rounding.

    Args:
        reference: (N, classes).
        candidate: (N, classes).
        step: The scale that the logits are quantized with, above 0.
    """
    return max_abs_difference(reference, candidate) / _positive(step)


def mean_steps_apart(reference: Logits, candidate: Logits, step: float) -> float:
    """Return the mean absolute difference in units of the output's scale; lower is better."""
    return mean_abs_difference(reference, candidate) / _positive(step)


def max_abs_difference(reference: Logits, candidate: Logits) -> float:
    """Return the largest absolute difference; lower is better."""
    reference, candidate = checked_logits(reference, candidate)
    return float(np.abs(reference - candidate).max())


def mean_abs_difference(reference: Logits, candidate: Logits) -> float:
    """Return the mean absolute difference; lower is better."""
    reference, candidate = checked_logits(reference, candidate)
    return float(np.abs(reference - candidate).mean())


def cosine_similarity(reference: Logits, candidate: Logits) -> float:
    """Return the cosine of the angle between the two, over all logits; higher is better.

    It does not notice a wrong scale, so no gate rests on it alone.

    Raises:
        DataError: all logits of one side are zero; the angle is undefined.
    """
    reference, candidate = checked_logits(reference, candidate)
    lengths = float(np.linalg.norm(reference) * np.linalg.norm(candidate))
    if lengths == 0:
        raise DataError("All logits are zero: their cosine similarity is undefined.")
    return float(np.vdot(reference, candidate)) / lengths


def mean_cosine_similarity(reference: Logits, candidate: Logits) -> float:
    """Return the mean over samples of the cosine between the two vectors; higher is better.

    Raises:
        DataError: a vector is zero; the angle is undefined.
    """
    reference, candidate = checked_logits(reference, candidate)
    lengths = np.linalg.norm(reference, axis=1) * np.linalg.norm(candidate, axis=1)
    if not lengths.all():
        raise DataError("A vector is zero: its cosine similarity is undefined.")
    return float(((reference * candidate).sum(axis=1) / lengths).mean())


def rms_error(reference: Logits, candidate: Logits) -> float:
    """Return the root of the mean squared difference, in the outputs' units; lower is better."""
    reference, candidate = checked_logits(reference, candidate)
    return float(np.sqrt(np.square(reference - candidate).mean()))


def mean_iou(reference: Logits, candidate: Logits, classes: int) -> float:
    """Return the mean intersection over union of two maps' top-1 classes; higher is better.

    Counted over all places of all samples, and averaged over the classes that either side has
    anywhere (Everingham et al. 2010, "The PASCAL Visual Object Classes challenge", section 4.4).

    Args:
        reference: (N, classes x places), class by class.
        candidate: As `reference`.
        classes: Number of classes, above 1.

    Raises:
        DataError: the values are not classes x places, or there is one class.
    """
    reference, candidate = checked_logits(reference, candidate)
    if classes < 2 or reference.shape[1] % classes:
        raise DataError(
            f"{reference.shape[1]} values are no map of {classes} classes; expected a multiple, and"
            " two classes or more."
        )
    one, other = (
        side.reshape(len(side), classes, -1).argmax(axis=1).ravel()
        for side in (reference, candidate)
    )
    both = np.bincount(one[one == other], minlength=classes)
    either = np.bincount(one, minlength=classes) + np.bincount(other, minlength=classes) - both
    return float((both[either > 0] / either[either > 0]).mean())


def kl_divergence(reference: Logits, candidate: Logits) -> float:
    """Return the mean of `kl_divergences`, in nats; lower is better."""
    return float(kl_divergences(reference, candidate).mean())


def kl_divergences(reference: Logits, candidate: Logits) -> NDArray[np.float64]:
    """Return the KL divergence of the candidate's softmax from the reference's, per sample.

    sum_i p_i (log p_i - log q_i), with p from the reference.

    Returns:
        (N,), in nats.
    """
    reference, candidate = checked_logits(reference, candidate)
    log_p, log_q = (scipy.special.log_softmax(side, axis=1) for side in (reference, candidate))
    divergences: NDArray[np.float64] = (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
    return divergences


def top1_margins(reference: Logits, candidate: Logits) -> NDArray[np.float64]:
    """Return how far the reference's top-1 logit is above that of the candidate's top-1 class.

    Returns:
        (N,), in the reference's logits; 0 where both have the same top-1 class.
    """
    reference, candidate = checked_logits(reference, candidate)
    rows = np.arange(len(reference))
    first, preferred = reference.argmax(axis=1), candidate.argmax(axis=1)
    margins: NDArray[np.float64] = reference[rows, first] - reference[rows, preferred]
    return margins


def flip_margins(reference: Logits, candidate: Logits) -> NDArray[np.float64]:
    """Return the `top1_margins` of the samples whose top-1 class changed, largest first.

    A change at a margin of 0.01 is within noise; one at 5 points to a bug.

    Returns:
        (flips,), in logits; empty where no class changed.
    """
    margins = top1_margins(reference, candidate)
    changed = np.argmax(reference, axis=1) != np.argmax(candidate, axis=1)
    return np.sort(margins[changed])[::-1]


def worst_flip_margin(reference: Logits, candidate: Logits) -> float:
    """Return the largest of `flip_margins`, 0 where no class changed; lower is better."""
    return float(max(flip_margins(reference, candidate), default=0.0))


def margin_weighted_flips(reference: Logits, candidate: Logits) -> float:
    """Return the sum of `flip_margins` divided by the number of samples; lower is better.

    This is the mean regret: how much of the reference's logit is lost, per sample, by following the
    candidate's choice.
    """
    return float(flip_margins(reference, candidate).sum() / len(reference))


def checked_logits(
    reference: Logits, candidate: Logits
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return reference and candidate, (N, classes), in float64, if they can be compared.

    Raises:
        DataError: unlike shapes, not (N, classes), or nothing to compare.
        GateError: NaN or infinite logits.
    """
    if reference.shape != candidate.shape:
        raise DataError(
            f"Cannot compare logits of different shapes: reference {reference.shape}, "
            f"candidate {candidate.shape}.",
            remedy="Check that both come from the same images and from networks with as many"
            " classes.",
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


def _classes(
    reference: Logits, candidate: Logits
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return both in float64, like `checked_logits`; also raise DataError for a single output."""
    checked = checked_logits(reference, candidate)
    if reference.shape[1] == 1:
        raise DataError("One output has no classes: it is the largest whatever it is.")
    return checked


def _top(logits: NDArray[np.float64], k: int) -> NDArray[np.intp]:
    """Return the top-k classes of each sample; among equal logits the lower class comes first."""
    return np.argsort(-logits, axis=1, kind="stable")[:, :k]


def _positive(step: float) -> float:
    if not (step > 0 and math.isfinite(step)):
        raise DataError(f"The output's step is {step}; expected a scale above 0.")
    return step
