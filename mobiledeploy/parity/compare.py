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

    from mobiledeploy.parity.types import Metrics

    Logits = NDArray[np.float32]

_TOP = 5


def compare_logits(reference: Logits, candidate: Logits, step: float | None = None) -> Metrics:
    """Return all metrics of how far `candidate` is from `reference`.

    Args:
        reference: (N, classes).
        candidate: (N, classes).
        step: Scale of the int8 logits; None for float logits.

    Raises:
        GateError: a logit is NaN or infinite.
        DataError: the shapes differ, or there is nothing to compare.
    """
    agreement = metrics.top1_agreement(reference, candidate)
    agreeing = round(agreement * len(reference))
    low, high = metrics.wilson_interval(agreeing, len(reference))
    shares = metrics.topk_shares(reference, candidate, k=min(_TOP, reference.shape[1]))
    top5_low, top5_high = metrics.mean_interval(shares)
    found: Metrics = {
        "differing_logits": float(metrics.differing_logits(reference, candidate)),
        "logits": float(reference.size),
        "sqnr_db": metrics.sqnr_db(reference, candidate),
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
        "max_abs_difference": metrics.max_abs_difference(reference, candidate),
        "mean_abs_difference": metrics.mean_abs_difference(reference, candidate),
    }
    if np.any(reference) and np.any(candidate):  # the angle to a zero vector is undefined
        found["cosine_similarity"] = metrics.cosine_similarity(reference, candidate)
    if step is not None:
        found["max_steps_apart"] = metrics.max_steps_apart(reference, candidate, step)
        found["mean_steps_apart"] = metrics.mean_steps_apart(reference, candidate, step)
    return found


def missed_limits(found: Metrics, limits: Mapping[str, float]) -> tuple[str, ...]:
    """Return a sentence for each limit that is missed; a metric that is absent or NaN misses it."""
    values = cast("Mapping[str, float]", found)
    missed = []
    for limit_name, limit in limits.items():
        side, _, name = limit_name.partition("_")
        value = values.get(name, float("nan"))
        if not (value >= limit if side == "min" else value <= limit):
            bound = "at least" if side == "min" else "at most"
            missed.append(f"{name} is {value:.4g}; expected {bound} {limit:g}.")
    return tuple(missed)
