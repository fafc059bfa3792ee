"""A parity report as rows of text: one per rung, the same on the terminal, in Markdown and HTML."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mobiledeploy.network import describe_images

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mobiledeploy.parity.types import Comparison, ParityReport, Rung

Verdict = Literal["passed", "FAILED", "not judged", "shown"]


@dataclass(frozen=True, slots=True)
class Row:
    """One rung, for people.

    Attributes:
        rung: Its name, with the artifact where there are several of one format.
        against: The rung that it is held against.
        figures: Against that one.
        versus_float: SQNR and agreement against float.
        accuracy: Top-1, where the images have labels.
        verdict: "shown" where nothing is demanded of the rung.
    """

    rung: str
    against: str
    figures: str
    versus_float: str
    accuracy: str
    verdict: Verdict


def rows(report: ParityReport) -> list[Row]:
    """Return one row per rung, from float upwards."""
    return [_row(rung, report) for rung in report.rungs]


def headline(report: ParityReport) -> str:
    """Return the verdict in one line."""
    failed = report.first_failure
    if failed is not None:
        return f"Parity FAILED at the rung {title(failed, report)!r}"
    if report.regressions:
        return "Parity holds, but it is WORSE than the baseline"
    if not report.passed:
        return "Parity FAILED: nothing was compared"
    compared = report.regressions is not None
    return f"Parity holds{', and nothing is worse than the baseline' if compared else ''}"


def loss(report: ParityReport) -> str:
    """Return what the top of the ladder keeps of float, in one line; empty if it has no logits."""
    compared = ((rung, rung.against("float")) for rung in reversed(report.rungs))
    rung, found = next(((r, c.metrics) for r, c in compared if c and c.metrics), (None, {}))
    if rung is None:
        return ""
    count, flips = report.data.count, int(found["flips"])
    kept = (
        f"{rung.title} keeps float's first class on {count - flips} of {count} images"
        f" ({found['top1_agreement']:.1%}; 95% interval {found['top1_agreement_low']:.1%} to"
        f" {found['top1_agreement_high']:.1%})"
    )
    if not flips:
        return f"{kept}."
    return f"{kept}; the surest that changed had a margin of {found['worst_flip_margin']:.2f}."


def used(report: ParityReport) -> str:
    """Return what was compared on, in one line."""
    data = report.data
    suits = ", which the network was calibrated with" if data.calibration else ""
    labelled = "" if data.labelled else " (without labels)"
    device = f"; device: {report.device}" if report.device else ""
    return f"{describe_images(data.count, data.source)}{suits}{labelled}{device}"


def title(rung: Rung, report: ParityReport) -> str:
    """Return what a rung is called, with its artifact where the name alone is not enough."""
    same = sum(other.name == rung.name for other in report.rungs)
    return f"{rung.name} {rung.artifact}" if same > 1 else rung.name


def decisive(rung: Rung) -> Comparison | None:
    """Return the comparison that the rung is judged by, or else the one with the rung below."""
    judged = [c for c in rung.comparisons if c.limits and c.images == "data"]
    return next(iter([*judged, *rung.comparisons]), None)


def decibels(value: float) -> str:
    """Return an SQNR for people."""
    return "equal" if math.isinf(value) and value > 0 else f"{value:.1f} dB"


def _row(rung: Rung, report: ParityReport) -> Row:
    held, versus_float = decisive(rung), rung.against("float")
    return Row(
        rung=title(rung, report),
        against=held.reference if held else "",
        figures=_figures(held.metrics) if held else "",
        versus_float=_loss(versus_float.metrics) if versus_float else "",
        accuracy="" if rung.accuracy is None else f"{rung.accuracy:.3f}",
        verdict=_verdict(rung, held),
    )


def _figures(metrics: Mapping[str, float]) -> str:
    if not metrics:
        return "not compared"
    if metrics["differing_logits"] == 0:
        return f"0 of {metrics['logits']:.0f} differ"
    return _loss(metrics)


def _loss(metrics: Mapping[str, float]) -> str:
    if not metrics:
        return ""
    return f"{decibels(metrics['sqnr_db'])}, {metrics['top1_agreement']:.3f}"


def _verdict(rung: Rung, held: Comparison | None) -> Verdict:
    if not rung.passed:
        return "FAILED"
    if rung.note:
        return "not judged"
    return (
        "passed" if rung.name in ("float", "onnx-as-written") or (held and held.limits) else "shown"
    )
