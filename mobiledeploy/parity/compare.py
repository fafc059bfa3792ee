"""Compare two sets of logits: compute all metrics, and check them against limits.

Limits are named after metrics: "min_sqnr_db" is the least `sqnr_db` that passes,
"max_differing_logits" the largest `differing_logits`. Logits that cannot be compared raise an error
instead of giving metrics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from mobiledeploy import metrics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from mobiledeploy.network import Task
    from mobiledeploy.parity.types import Metrics

    Logits = NDArray[np.float32]

_TOP = 5
_UNDEFINED = {
    "sqnr_db": "there is only one image, or the outputs are the same for all images",
    "top1_agreement": "the outputs are no classes",
}


def compare_logits(
    reference: Logits, candidate: Logits, step: float | None = None, task: Task = "classes"
) -> Metrics:
    """Return all metrics of how far `candidate` is from `reference`.

    Metrics that have no meaning here are absent: SQNR if the reference is the same for all images,
    and the metrics of classes for other tasks and for a single output.

    Args:
        reference: (N, classes).
        candidate: (N, classes).
        step: Scale of the int8 logits; None for float logits.
        task: What the outputs mean.

    Raises:
        GateError: a logit is NaN or infinite.
        DataError: the shapes differ, or there is nothing to compare.
    """
    found: Metrics = {
        "differing_logits": float(metrics.differing_logits(reference, candidate)),
        "logits": float(reference.size),
        "max_abs_difference": metrics.max_abs_difference(reference, candidate),
        "mean_abs_difference": metrics.mean_abs_difference(reference, candidate),
    }
    if metrics.varies(reference):
        found["sqnr_db"] = metrics.sqnr_db(reference, candidate)
    if task == "classes" and reference.shape[1] > 1:
        found |= _of_classes(reference, candidate)
    if task == "regression":
        found |= _of_outputs(reference, candidate)
    if reference.any(axis=1).all() and candidate.any(axis=1).all():  # a zero vector has no angle
        found["mean_cosine_similarity"] = metrics.mean_cosine_similarity(reference, candidate)
    if np.any(reference) and np.any(candidate):
        found["cosine_similarity"] = metrics.cosine_similarity(reference, candidate)
    if step is not None:
        found["max_steps_apart"] = metrics.max_steps_apart(reference, candidate, step)
        found["mean_steps_apart"] = metrics.mean_steps_apart(reference, candidate, step)
    return found


def _of_classes(reference: Logits, candidate: Logits) -> Metrics:
    agreement = metrics.top1_agreement(reference, candidate)
    agreeing = round(agreement * len(reference))
    low, high = metrics.wilson_interval(agreeing, len(reference))
    shares = metrics.topk_shares(reference, candidate, k=min(_TOP, reference.shape[1]))
    top5_low, top5_high = metrics.mean_interval(shares)
    return {
        "top1_agreement": agreement,
        "top1_agreement_low": low,
        "top1_agreement_high": high,
        "top5_agreement": float(shares.mean()),
        "top5_agreement_low": top5_low,
        "top5_agreement_high": top5_high,
        "flips": float(len(reference) - agreeing),
        "worst_flip_margin": metrics.worst_flip_margin(reference, candidate),
        "margin_weighted_flips": metrics.margin_weighted_flips(reference, candidate),
        "kl_divergence": metrics.kl_divergence(reference, candidate),
    }


def _of_outputs(reference: Logits, candidate: Logits) -> Metrics:
    """Return which output does worst by itself, and how many are the same for all images."""
    each = metrics.output_sqnr_db(reference, candidate)
    found: Metrics = {"constant_outputs": float(np.isnan(each).sum())}
    if found["constant_outputs"] < len(each):
        found["lowest_output"] = float(np.nanargmin(each))
        found["lowest_output_sqnr_db"] = float(np.nanmin(each))
    return found


def missed_limits(found: Metrics, limits: Mapping[str, float]) -> tuple[str, ...]:
    """Return a sentence for each limit that is missed; a metric that is absent or NaN misses it."""
    values = cast("Mapping[str, float]", found)
    missed = []
    for limit_name, limit in limits.items():
        side, _, name = limit_name.partition("_")
        value = values.get(name, float("nan"))
        if name not in values:
            why = _UNDEFINED.get(name, "it was not measured")
            missed.append(f"{name} is undefined: {why}.")
        elif not (value >= limit if side == "min" else value <= limit):
            bound = "at least" if side == "min" else "at most"
            missed.append(f"{name} is {value:.4g}; expected {bound} {limit:g}.")
    return tuple(missed)
