"""Every comparison of a parity report with all its figures, as an HTML table.

What the ladder leaves out: top-5, intervals, flips by margin, KL, cosine, steps of the output.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, cast

from mobiledeploy.parity.report.rows import decibels, title

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mobiledeploy.parity.types import ParityReport

    Figures = Mapping[str, float]


def _share(name: str) -> Callable[[Figures], str]:
    """Return what shows a share with its interval."""
    return lambda found: (
        f"{found[name]:.3f} ({found[f'{name}_low']:.3f} to {found[f'{name}_high']:.3f})"
    )


def _number(name: str, form: str) -> Callable[[Figures], str]:
    return lambda found: format(found[name], form) if name in found else ""


_COLUMNS: Mapping[str, Callable[[Figures], str]] = {
    "SQNR": lambda found: decibels(found["sqnr_db"]),
    "top-1 agreement (95%)": _share("top1_agreement"),
    "top-5 agreement (95%)": _share("top5_agreement"),
    "changed classes": _number("flips", ".0f"),
    "surest change": _number("worst_flip_margin", ".2f"),
    "mean regret": _number("margin_weighted_flips", ".4f"),
    "KL, nats": _number("kl_divergence", ".4f"),
    "cosine": _number("cosine_similarity", ".5f"),
    "largest difference": _number("max_abs_difference", ".3g"),
    "in steps": _number("max_steps_apart", ".1f"),
    "mean difference": _number("mean_abs_difference", ".3g"),
    "mean, in steps": _number("mean_steps_apart", ".2f"),
}


def figures_table(report: ParityReport) -> str:
    """Return the table, folded away; empty where nothing was compared."""
    body = []
    for rung in report.rungs:
        for comparison in rung.comparisons:
            if not comparison.metrics:
                continue
            where = ", images of the calibration" if comparison.images == "calibration" else ""
            cells = [show(cast("Figures", comparison.metrics)) for show in _COLUMNS.values()]
            numbers = "".join(f'<td class="number">{escape(cell)}</td>' for cell in cells)
            names = f"<td>{escape(title(rung, report))}</td><td>{comparison.reference}{where}</td>"
            body.append(f"<tr>{names}{numbers}</tr>")
    if not body:
        return ""
    heading = "".join(f'<th class="number">{name}</th>' for name in _COLUMNS)
    return (
        f"<details><summary>All figures of {len(body)} comparisons</summary><p>Differences of"
        " logits; a step is what one code of the int8 logits is worth. Regret: how much of float's"
        " logit the changed choices give up, per image.</p>"
        '<div class="wide"><table class="figures">'
        f"<thead><tr><th>rung</th><th>against</th>{heading}</tr></thead><tbody>{''.join(body)}"
        "</tbody></table></div></details>"
    )
