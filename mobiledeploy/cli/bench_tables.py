"""Text of benchmark results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobiledeploy.cli.figures import TitledRow, print_figures
from mobiledeploy.cli.output import print_note, print_result, print_warning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mobiledeploy.bench.json_report import (
        BaselineComparison,
        CountedArtifact,
        InstructionsResult,
        TimedArtifact,
        TimesResult,
    )

_MIB = 2**20


def print_document(document: TimesResult | InstructionsResult) -> None:
    """Print the table of a result, and what makes its figures doubtful."""
    from mobiledeploy.bench.json_report import TimesResult

    if isinstance(document, TimesResult):
        _print_times(document.measurements)
    else:
        _print_counts(document.measurements)
    _print_remarks(document.measurements)
    for note in document.notes:
        print_note(note)


def print_comparison(comparison: BaselineComparison) -> None:
    """Print how each artifact compares with the baseline."""
    for verdict in comparison.verdicts:
        relative = f", relative to {verdict.reference}" if verdict.reference else ""
        change = f"{verdict.ratio - 1:+.1%} against the baseline"
        print_result(f"{verdict.artifact}: {change}{relative}.")
    for name in comparison.added:
        print_result(f"{name}: not in the baseline, so not compared.")
    for name in comparison.missing:
        print_result(f"{name}: in the baseline, but not measured now.")


def _print_times(measurements: Sequence[TimedArtifact]) -> None:
    first = measurements[0]
    print_result(f"{first.device}, threads: {first.threads}, runs: {len(first.times_ms)}")
    print_result("")
    rows = []
    for m in measurements:
        ratio = m.ratio_to_first
        memory = m.peak_memory_bytes
        figures = (
            f"{m.median_ms:.2f}",
            f"{m.p90_ms:.2f}",
            f"{m.p99_ms:.2f}",
            f"{m.iqr_ms:.2f}",
            f"{m.load_ms:.1f}",
            f"{m.first_ms:.1f}",
            "-" if memory is None else f"{memory / _MIB:.1f}",
            "1" if m is first else f"{ratio.median:.3f} ({ratio.q1:.3f}-{ratio.q3:.3f})",
        )
        rows.append(TitledRow(title=m.name, details=(m.runtime,), figures=figures))
    headings = (
        *("median\nms", "p90\nms", "p99\nms", "IQR\nms", "load\nms", "first\nms"),
        *("memory\nMiB", "ratio to first\n(quartiles)"),
    )
    print_figures(headings, rows)


def _print_counts(counts: Sequence[CountedArtifact]) -> None:
    first = counts[0]
    print_result(f"{first.device}, one thread, runs: {len(first.instructions)}")
    print_result("")
    rows = [
        TitledRow(
            title=c.name,
            details=(c.runtime,),
            figures=(
                f"{c.median_instructions:,.0f}",
                f"{min(c.instructions):,}",
                f"{max(c.instructions):,}",
                "1" if c is first else f"{c.ratio_to_first:.4f}",
            ),
        )
        for c in counts
    ]
    headings = ("instructions\nmedian", "\nminimum", "\nmaximum", "ratio to\nfirst")
    print_figures(headings, rows)


def _print_remarks(measurements: Sequence[TimedArtifact | CountedArtifact]) -> None:
    """Print how the outputs compare, and what makes the figures doubtful."""
    print_result("")
    for m in measurements:
        if m.outputs is not None:
            print_result(
                f"{m.name}: {m.outputs.differing} of {m.outputs.values} outputs differ from this "
                f"machine's ({m.outputs.sqnr_db:.1f} dB)."
            )
        for warning in m.warnings:
            print_warning(f"{m.name}: {warning}")
