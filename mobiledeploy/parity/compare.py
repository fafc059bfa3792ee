"""All figures of one comparison, under the names that reports and tolerances use.

In: two sets of logits of the same images. Out: name -> figure; the directions are in the docstrings
of `metrics`. Invariant: what cannot be compared raises, and has no figures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mobiledeploy import metrics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Logits = NDArray[np.float32]

_TOP = 5


def figures(reference: Logits, candidate: Logits, step: float | None = None) -> dict[str, float]:
    """Return every figure that says how far `candidate` is from `reference`.

    Args:
        reference: (N, classes).
        candidate: Likewise.
        step: What one code of int8 logits is worth; None where there are no codes.

    Raises:
        GateError: a logit is not finite.
        DataError: unlike shapes, or nothing to compare.
    """
    agreement = metrics.top1_agreement(reference, candidate)
    agreeing = round(agreement * len(reference))
    low, high = metrics.wilson_interval(agreeing, len(reference))
    shares = metrics.topk_shares(reference, candidate, k=min(_TOP, reference.shape[1]))
    top5_low, top5_high = metrics.mean_interval(shares)
    found = {
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
    if np.any(reference) and np.any(candidate):  # zeros have no direction
        found["cosine_similarity"] = metrics.cosine_similarity(reference, candidate)
    if step is not None:
        found["max_steps_apart"] = metrics.max_steps_apart(reference, candidate, step)
        found["mean_steps_apart"] = metrics.mean_steps_apart(reference, candidate, step)
    return found


def shortfalls(found: dict[str, float], limits: dict[str, float]) -> tuple[str, ...]:
    """Return a sentence for every figure that misses its limit; a missing figure misses it too."""
    said = []
    for key, limit in limits.items():
        side, _, name = key.partition("_")
        value = found.get(name, float("nan"))
        if not (value >= limit if side == "min" else value <= limit):
            bound = "at least" if side == "min" else "at most"
            said.append(f"{name} is {value:.4g}; expected {bound} {limit:g}.")
    return tuple(said)
