"""A parity report as rows of text, one per rung: the same in the terminal, in Markdown and HTML."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mobiledeploy.stages import describe_images

if TYPE_CHECKING:
    from mobiledeploy.network import Task
    from mobiledeploy.parity.types import Comparison, Metrics, ParityReport, Rung

Verdict = Literal["passed", "FAILED", "not checked", "info"]


@dataclass(frozen=True, slots=True)
class Row:
    """One rung as text.

    Attributes:
        rung: Its name, with the artifact if several artifacts have such a rung.
        against: The rung that it is compared with.
        metrics: Of that comparison.
        versus_float: SQNR against float, and what counts besides for the network's task: top-1
            agreement, the mean error, or the mean cosine.
        accuracy: Top-1 accuracy; empty without labels.
        verdict: "info" if the rung has no limits, "not checked" if they do not apply.
    """

    rung: str
    against: str
    metrics: str
    versus_float: str
    accuracy: str
    verdict: Verdict


_RESIZES = {
    "bilinear-aliased": "Android's createScaledBitmap (bilinear, aliased)",
    "bilinear": "Pillow (bilinear, antialiased)",
    "lanczos": "iOS's vImage (Lanczos)",
}


def rows(report: ParityReport) -> list[Row]:
    """Return one row per rung, from float upwards."""
    return [_row(rung, report) for rung in report.rungs]


def headline(report: ParityReport) -> str:
    """Return the verdict in one line."""
    failed = report.first_failed_rung
    if failed is not None:
        return f"Parity FAILED at the rung {title(failed, report)!r}"
    if report.regressions:
        return "Parity holds, but it is WORSE than the baseline"
    if not report.passed:
        return "Parity FAILED: nothing was compared"
    compared = report.regressions is not None
    return f"Parity holds{', and nothing is worse than the baseline' if compared else ''}"


def loss(report: ParityReport) -> str:
    """Return how close the last rung is to float, in one line; empty if it has no logits."""
    compared = ((rung, rung.against("float")) for rung in reversed(report.rungs))
    rung, found = next(((r, c.metrics) for r, c in compared if c and c.metrics), (None, None))
    if rung is None or found is None:
        return ""
    comparison = rung.against("float")
    if comparison is not None and comparison.outputs:
        return _loss_of_outputs(rung.title, comparison)
    if report.task != "classes":
        return _loss_of_values(rung.title, found, report)
    if "flips" not in found:
        return ""
    count, flips = report.data.count, int(found["flips"])
    kept = (
        f"{rung.title} keeps float's top-1 class on {count - flips} of {count} images"
        f" ({found['top1_agreement']:.1%}; 95% interval {found['top1_agreement_low']:.1%} to"
        f" {found['top1_agreement_high']:.1%})"
    )
    if not flips:
        return f"{kept}."
    return f"{kept}; the largest margin of a changed class is {found['worst_flip_margin']:.2f}."


def _loss_of_outputs(title: str, comparison: Comparison) -> str:
    """Return how far each of several outputs is from float's, in one line."""
    texts = (f"{each.name} {_loss(each.metrics, each.task)}" for each in comparison.outputs)
    return f"{title} against float: {'; '.join(texts)}."


def _loss_of_values(title: str, found: Metrics, report: ParityReport) -> str:
    """Return how far outputs that are no classes are from float's, in one line."""
    text = (
        f"{title} is off by {found['mean_abs_difference']:.3g} on average and by at most"
        f" {found['max_abs_difference']:.3g}, in the units of the outputs"
    )
    if report.task == "embedding" and "mean_cosine_similarity" in found:
        text += f"; the mean cosine is {found['mean_cosine_similarity']:.5f}"
    if "lowest_output" in found and found["logits"] > report.data.count:
        text += (
            f"; output {found['lowest_output']:.0f} has the lowest SQNR,"
            f" {decibels(found['lowest_output_sqnr_db'])}"
        )
    if constant := found.get("constant_outputs"):
        text += f"; outputs that are the same for all images: {constant:.0f}"
    return f"{text}."


def images_used(report: ParityReport) -> str:
    """Return the images and the device of the comparison, in one line."""
    data = report.data
    calibration = ", also used for calibration" if data.calibration else ""
    labelled = "" if data.labelled else " (without labels)"
    device = f"; device: {report.device}" if report.device else ""
    return f"{describe_images(data.count, data.source)}{calibration}{labelled}{device}"


def title(rung: Rung, report: ParityReport) -> str:
    """Return a rung's name, with its artifact if the name alone is ambiguous."""
    same = sum(other.name == rung.name for other in report.rungs)
    return f"{rung.name} {rung.artifact}" if same > 1 else rung.name


def notes(report: ParityReport) -> list[str]:
    """Return why limits do not apply to some rungs, and what other ways to resize would change."""
    reasons = dict.fromkeys(rung.note for rung in report.rungs if rung.note)
    return [*(f"Not checked: {reason}." for reason in reasons), *_resize_lines(report)]


def _resize_lines(report: ParityReport) -> list[str]:
    if report.resizes and all(each.mean_pixel_difference == 0 for each in report.resizes):
        return ["The images have the size that they are resized to: no other resize changes them."]
    lines = []
    for each in report.resizes:
        parts = [f"{each.mean_pixel_difference:.2f} of 255 per pixel"]
        if each.sqnr_db is not None:
            parts.append(decibels(each.sqnr_db))
        if each.top1_agreement is not None:
            parts.append(f"top-1 agreement {each.top1_agreement:.3f}")
        name = _RESIZES.get(each.interpolation, each.interpolation)
        lines.append(f"Float network, resized like {name}: {', '.join(parts)}.")
    return lines


def decibels(value: float) -> str:
    """Return an SQNR as text."""
    return "equal" if math.isinf(value) and value > 0 else f"{value:.1f} dB"


def _row(rung: Rung, report: ParityReport) -> Row:
    main, versus_float = _main_comparison(rung), rung.against("float")
    return Row(
        rung=title(rung, report),
        against=main.reference if main else "",
        metrics=_metrics(main.metrics, report.task) if main else "",
        versus_float=_loss(versus_float.metrics, report.task) if versus_float else "",
        accuracy="" if rung.accuracy is None else f"{rung.accuracy:.3f}",
        verdict=_verdict(rung, main),
    )


def _main_comparison(rung: Rung) -> Comparison | None:
    """Return the comparison that has limits, or else the one with the rung below."""
    limited = [c for c in rung.comparisons if c.limits and c.images == "data"]
    return next(iter([*limited, *rung.comparisons]), None)


def _metrics(metrics: Metrics, task: Task) -> str:
    if not metrics:
        return "not compared"
    if metrics["differing_logits"] == 0:
        return f"0 of {metrics['logits']:.0f} differ"
    return _loss(metrics, task)


def _loss(metrics: Metrics, task: Task) -> str:
    if not metrics:
        return ""
    parts = [decibels(metrics["sqnr_db"])] if "sqnr_db" in metrics else ["no SQNR"]
    if "top1_agreement" in metrics:
        parts.append(f"{metrics['top1_agreement']:.3f}")
    elif task == "embedding" and "mean_cosine_similarity" in metrics:
        parts.append(f"cosine {metrics['mean_cosine_similarity']:.4f}")
    elif "mean_iou" in metrics:
        parts.append(f"mean IoU {metrics['mean_iou']:.4f}")
    elif "rms_error" in metrics:
        parts.append(f"error {metrics['rms_error']:.3g}")
    else:
        parts.append(f"error {metrics['mean_abs_difference']:.3g}")
    return ", ".join(parts)


def _verdict(rung: Rung, main: Comparison | None) -> Verdict:
    if not rung.passed:
        return "FAILED"
    if rung.note:
        return "not checked"
    # float is checked for finite logits
    checked = rung.name == "float" or (main is not None and main.limits)
    return "passed" if checked else "info"
