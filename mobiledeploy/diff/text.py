"""Describe a `Difference` in sentences and table rows for the terminal.

A conclusion is only drawn if chance does not explain the numbers as well.
"""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import TYPE_CHECKING

from mobiledeploy.stages import describe_images

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mobiledeploy.diff.types import (
        Difference,
        EncodingsDiff,
        FilesDiff,
        FloatComparison,
        OutputsDiff,
        PairedComparison,
    )

_SIGNIFICANT = 0.05
_MAX_FIELDS = 8
_DESCRIBED = ("count", "sha256")  # fields that the description of an input already shows


def headline(difference: Difference) -> Iterator[str]:
    """Yield the answer in a few sentences."""
    if difference.same:
        yield "No difference: same bytes, same inputs."
        return
    yield _main_cause(difference)
    if difference.changed_inputs and difference.files.same_bytes:
        yield "The bytes are the same nevertheless: the difference does not affect the artifact."
    if difference.outputs is not None:
        yield from judge_outputs(difference.outputs)


def _main_cause(difference: Difference) -> str:
    """Return the first thing that differs, in the order of the pipeline."""
    changed = [entry.name for entry in difference.changed_inputs]
    encodings = difference.encodings
    if len(changed) == 1:
        return f"The inputs differ in {changed[0]} only; everything else follows from it."
    if changed:
        return (
            f"The inputs differ in {_join(changed)}. Change one at a time to see which of them"
            " matters."
        )
    if encodings is not None and not encodings.same_network:
        return (
            "The inputs are the same, but the int8 networks differ: float arithmetic differs"
            " between the machines, or a manifest was edited."
        )
    if difference.formats_differ:
        return "The same network in two formats."
    if encodings is None:
        return "The inputs are the same, but the files differ."
    return "The inputs and the int8 networks are the same; only the files differ."


def judge_outputs(outputs: OutputsDiff) -> Iterator[str]:
    """Yield which artifact is better, as far as the outputs show it."""
    if outputs.metrics and outputs.metrics["differing_logits"] == 0:
        yield f"The logits are equal on all {outputs.count} images."
        return
    distances = (
        f"A {describe_float_comparison(outputs.a_against_float)},"
        f" B {describe_float_comparison(outputs.b_against_float)}"
    )
    yield from _judge(outputs.closer_to_float, "closer to float", distances)
    if outputs.correct is not None:
        both = outputs.both_correct or 0
        accuracies = ", ".join(
            f"{name} {(both + alone) / outputs.count:.3f}"
            for name, alone in (("A", outputs.correct.a), ("B", outputs.correct.b))
        )
        yield from _judge(outputs.correct, "more accurate", f"top-1 {accuracies}")


def _judge(comparison: PairedComparison | None, better: str, figures: str) -> Iterator[str]:
    """Yield which artifact is better, or that the numbers do not show it."""
    if comparison is None:
        return
    a, b, p = comparison.a, comparison.b, comparison.p_value
    counts = f"{figures}; A is better on {a} images, B on {b}"
    if p < _SIGNIFICANT:
        yield f"{'A' if a > b else 'B'} is {better}: {counts} (p = {p:.1g})."
    else:
        yield f"Neither is significantly {better}: {counts} (p = {p:.2g})."


def describe_encodings(encodings: EncodingsDiff) -> Iterator[str]:
    """Yield how the encodings of activations differ."""
    moved = encodings.moved
    if encodings.common and not moved:
        yield f"Encodings: the same for all {encodings.common} activations."
    elif moved:
        ratios = [pair.scale_ratio for pair in moved]
        yield (
            f"Encodings: {len(moved)} of {encodings.common} activations differ. Scale of B over A:"
            f" {min(ratios):.2f} to {max(ratios):.2f}, median {statistics.median(ratios):.2f}."
        )
    for name, only in (("A", encodings.only_a), ("B", encodings.only_b)):
        if only:
            shown = ", ".join(only[:3]) + (", ..." if len(only) > 3 else "")
            yield f"Encodings: {len(only)} activations are quantized in {name} only: {shown}."
    if not moved and not encodings.only_a and not encodings.only_b and not encodings.same_network:
        yield "The int8 weights or biases differ: they were rounded differently."


def input_rows(difference: Difference) -> list[tuple[str, str, str]]:
    """Return the table of inputs: a row per input, and one below it per field that differs."""
    table: list[tuple[str, str, str]] = []
    for entry in difference.inputs:
        table.append((entry.name, entry.a, entry.b if entry.changes else "same"))
        fields = [change for change in entry.changes if change.field not in _DESCRIBED]
        table += [(f"  {c.field}", c.a or "-", c.b or "-") for c in fields[:_MAX_FIELDS]]
        if len(fields) > _MAX_FIELDS:
            table.append((f"  {len(fields) - _MAX_FIELDS} more", "", ""))
    a, b = difference.a_at_export, difference.b_at_export
    if a is not None or b is not None:
        table.append(("at export", _describe_at_export(a), _describe_at_export(b)))
    return table


def _describe_at_export(comparison: FloatComparison | None) -> str:
    if comparison is None:
        return "not measured"
    images = describe_images(comparison.images, Path(comparison.source).name)
    return f"{describe_float_comparison(comparison)} against float, on {images}"


def encoding_rows(encodings: EncodingsDiff) -> list[tuple[str, str, str, str]]:
    """Return a row per moved activation: its name, both ranges, the ratio of the scales."""
    return [
        (
            f"{pair.layer} {pair.name}".strip(),
            f"{pair.a.low:.3g} to {pair.a.high:.3g}",
            f"{pair.b.low:.3g} to {pair.b.high:.3g}",
            f"{pair.scale_ratio:.2f}",
        )
        for pair in encodings.moved
    ]


def describe_files(files: FilesDiff) -> Iterator[str]:
    """Yield how the files differ."""
    same = "same bytes" if files.same_bytes else "different bytes"
    yield (
        f"Size: {files.a_bytes:,} and {files.b_bytes:,} bytes"
        f" ({files.b_bytes - files.a_bytes:+,}), {same}."
    )
    if files.constants is not None:
        changed = [
            f"{kind} {a:,} and {b:,} bytes" for kind, (a, b) in files.constants.items() if a != b
        ]
        if changed:
            yield f"Constants: {'; '.join(changed)}."
    if files.operators is not None and not files.operators:
        yield "Operators: the same."
    if any(share is not None for share in files.int8_macs_shares):
        a, b = (
            "not counted" if share is None else f"{share:.1%}" for share in files.int8_macs_shares
        )
        yield f"Multiply-accumulates in int8: {a} and {b}."


def describe_outputs(outputs: OutputsDiff) -> str:
    """Return how B's outputs differ from A's, as a sentence."""
    images = describe_images(outputs.count, outputs.source)
    metrics = outputs.metrics
    if not metrics:
        return f"Outputs on {images}: not compared with each other."
    if metrics["differing_logits"] == 0:
        return f"Outputs on {images}: 0 of {metrics['logits']:.0f} logits differ."
    text = (
        f"Outputs on {images}: {metrics['differing_logits']:.0f} of {metrics['logits']:.0f} logits"
        f" differ; B against A {decibels(metrics.get('sqnr_db', math.nan))}"
    )
    if "top1_agreement" not in metrics:
        return (
            f"{text}, error {metrics['mean_abs_difference']:.3g} on average and"
            f" {metrics['max_abs_difference']:.3g} at most."
        )
    return (
        f"{text}, top-1 agreement {metrics['top1_agreement']:.3f}"
        f" ({metrics['top1_agreement_low']:.3f} to {metrics['top1_agreement_high']:.3f})."
    )


def describe_float_comparison(comparison: FloatComparison | None) -> str:
    """Return SQNR and, for classes, top-1 agreement with float."""
    if comparison is None:
        return "not measured"
    agreement = comparison.top1_agreement
    return decibels(comparison.sqnr_db) + ("" if agreement is None else f", {agreement:.3f}")


def decibels(value: float) -> str:
    """Return an SQNR with its unit; "equal" if it is infinite, "no SQNR" if it is NaN."""
    if math.isnan(value):
        return "no SQNR"
    return "equal" if math.isinf(value) and value > 0 else f"{value:.1f} dB"


def _join(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
