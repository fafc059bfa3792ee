"""A parity report as Markdown, for a pull request or the summary of a CI job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobiledeploy.parity.report.rows import headline, images_used, loss, notes, rows

if TYPE_CHECKING:
    from mobiledeploy.parity.types import ParityReport

_LAYERS = 10


def to_markdown(report: ParityReport) -> str:
    """Return the verdict as a heading, the ladder as a table, and what failed as a list."""
    sign = "✅" if report.passed else "❌"
    lines = [
        f"## {sign} {_escape(headline(report))}: {_escape(report.network)}, {report.precision}",
        "",
        f"On {_escape(images_used(report))}. {_escape(loss(report))}",
        "",
        "| rung | against | metrics | vs float | top-1 | verdict |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows(report):
        cells = (row.rung, row.against, row.metrics, row.versus_float, row.accuracy, row.verdict)
        lines.append("| " + " | ".join(_escape(cell) for cell in cells) + " |")
    failures = [(str(rung.name), text) for rung in report.rungs for text in rung.failures]
    failures += [("baseline", text) for text in report.regressions or ()]
    if failures:
        lines += ["", *(f"- **{name}**: {_escape(text)}" for name, text in failures)]
    for note in notes(report):
        lines += ["", _escape(note)]
    if report.layers:
        lines += ["", *_layer_table(report)]
    lines += ["", "| artifact | size | sha256 | runtime |", "|---|---|---|---|"]
    lines += [
        f"| {_escape(a.file)} | {a.size_bytes / 1e6:.2f} MB | `{a.sha256[:12]}` | {a.runtime} |"
        for a in report.artifacts
    ]
    return "\n".join(lines) + "\n"


def _layer_table(report: ParityReport) -> list[str]:
    worst = sorted(report.layers, key=lambda layer: -layer.sqnr_drop_db)[:_LAYERS]
    return [
        f"The {len(worst)} layers where the SQNR drops most:",
        "",
        "| layer | SQNR drop | SQNR behind it | its own SQNR |",
        "|---|---|---|---|",
        *(
            f"| {_escape(layer.name)} | {layer.sqnr_drop_db:.1f} dB | {layer.sqnr_db:.1f} dB |"
            f" {layer.own_sqnr_db:.1f} dB |"
            for layer in worst
        ),
    ]


def _escape(text: str) -> str:
    """Return text that Markdown shows as it is: no table cells, tags or emphasis."""
    for character in "\\`*_<>|[]":
        text = text.replace(character, f"\\{character}")
    return text.replace("\n", " ")
