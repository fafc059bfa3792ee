"""Compare two sets of logits: compute all metrics, and check them against limits.

Limits are named after metrics: "min_sqnr_db" is the least `sqnr_db` that passes,
"max_differing_logits" the largest `differing_logits`. Logits that cannot be compared raise an error
instead of giving metrics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from mobiledeploy import metrics
from mobiledeploy.parity.types import OutputComparison
from mobiledeploy.significance import mean_interval, wilson_interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from mobiledeploy.network import OutputSpec, Task
    from mobiledeploy.parity.types import Metrics

    Logits = NDArray[np.float32]

_TOP = 5
_TASK_OF: Mapping[str, Task] = {
    "top1_agreement": "classes",
    "top5_agreement": "classes",
    "mean_cosine_similarity": "embedding",
    "mean_iou": "map",
}
_UNDEFINED = {
    "sqnr_db": "there is only one image, or the outputs are the same for all images",
    "top1_agreement": "the outputs are no classes",
}


_IN_WORDS = {
    "sqnr_db": ("SQNR", " dB"),
    "top1_agreement": ("top-1 agreement", ""),
    "mean_iou": ("mean IoU", ""),
    "mean_cosine_similarity": ("mean cosine similarity", ""),
    "max_abs_difference": ("the largest difference", ""),
}


def compare_logits(
    reference: Logits,
    candidate: Logits,
    step: float | None = None,
    task: Task = "classes",
    *,
    classes_of_map: int = 1,
) -> Metrics:
    """Return all metrics of how far `candidate` is from `reference`.

    Metrics that have no meaning here are absent: SQNR if the reference is the same for all images,
    and the metrics of classes for other tasks and for a single output.

    Args:
        reference: (N, classes).
        candidate: (N, classes).
        step: Scale of the int8 logits; None for float logits.
        task: What the outputs mean.
        classes_of_map: Number of classes of a map, whose values come class by class.

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
    if task in {"regression", "boxes"}:
        found["rms_error"] = metrics.rms_error(reference, candidate)
    if task == "map" and classes_of_map > 1:
        found["mean_iou"] = metrics.mean_iou(reference, candidate, classes_of_map)
    if reference.any(axis=1).all() and candidate.any(axis=1).all():  # a zero vector has no angle
        found["mean_cosine_similarity"] = metrics.mean_cosine_similarity(reference, candidate)
    if np.any(reference) and np.any(candidate):
        found["cosine_similarity"] = metrics.cosine_similarity(reference, candidate)
    if step is not None:
        found["max_steps_apart"] = metrics.max_steps_apart(reference, candidate, step)
        found["mean_steps_apart"] = metrics.mean_steps_apart(reference, candidate, step)
    return found


def compare_outputs(
    reference: Logits,
    candidate: Logits,
    outputs: Sequence[OutputSpec],
    limits: Mapping[str, float],
) -> tuple[OutputComparison, ...]:
    """Compare several outputs one by one.

    Args:
        reference: All outputs, one behind the other, (N, values).
        candidate: As `reference`.
        outputs: The outputs, in order.
        limits: Limits of all outputs. Those that belong to another task are left out.

    Raises:
        GateError: a value is NaN or infinite.
        DataError: the shapes differ, or there is nothing to compare.
    """
    ends = np.cumsum([output.size for output in outputs])
    sides = (np.split(side, ends[:-1], axis=1) for side in (reference, candidate))
    return tuple(
        OutputComparison(
            name=output.name,
            task=output.task,
            metrics=compare_logits(
                one, other, task=output.task, classes_of_map=classes_of_map(output)
            ),
            limits={name: limit for name, limit in limits.items() if _belongs(name, output)},
        )
        for output, one, other in zip(outputs, *sides, strict=True)
    )


def classes_of_map(output: OutputSpec) -> int:
    """Return the number of classes of a map; 1 for any other output."""
    return output.shape[0] if output.task == "map" else 1


def compare_together(
    reference: Logits, candidate: Logits, of_outputs: Sequence[OutputComparison]
) -> Metrics:
    """Return the metrics of several outputs together; SQNR is the lowest of theirs."""
    found: Metrics = {
        "differing_logits": float(metrics.differing_logits(reference, candidate)),
        "logits": float(reference.size),
        "max_abs_difference": metrics.max_abs_difference(reference, candidate),
        "mean_abs_difference": metrics.mean_abs_difference(reference, candidate),
    }
    sqnr = [each.metrics["sqnr_db"] for each in of_outputs if "sqnr_db" in each.metrics]
    return {**found, "sqnr_db": min(sqnr)} if sqnr else found


def _belongs(limit: str, output: OutputSpec) -> bool:
    """Return whether a limit applies to an output."""
    task = _TASK_OF.get(limit.partition("_")[2])
    if task == "classes":
        return output.task == task and output.size > 1
    return task is None or (output.task == task and (task != "map" or output.shape[0] > 1))


def _of_classes(reference: Logits, candidate: Logits) -> Metrics:
    agreement = metrics.top1_agreement(reference, candidate)
    agreeing = round(agreement * len(reference))
    low, high = wilson_interval(agreeing, len(reference))
    shares = metrics.topk_shares(reference, candidate, k=min(_TOP, reference.shape[1]))
    top5_low, top5_high = mean_interval(shares)
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


def in_words(metric: str) -> tuple[str, str]:
    """Return what sentences call a metric, and its unit."""
    return _IN_WORDS.get(metric, (metric.replace("_", " "), ""))


def missed_limits(found: Metrics, limits: Mapping[str, float]) -> tuple[str, ...]:
    """Return a sentence for each limit that is missed; a metric that is absent or NaN misses it."""
    values = cast("Mapping[str, float]", found)
    missed = []
    for limit_name, limit in limits.items():
        side, _, name = limit_name.partition("_")
        value = values.get(name, float("nan"))
        title, unit = in_words(name)
        if name not in values:
            why = _UNDEFINED.get(name, "it was not measured")
            missed.append(f"{title} is undefined: {why}.")
        elif not (value >= limit if side == "min" else value <= limit):
            bound = "at least" if side == "min" else "at most"
            missed.append(f"{title} is {value:.4g}{unit}; expected {bound} {limit:g}{unit}.")
    return tuple(missed)
