"""A `Difference` and a `Reproduction` in words: what the terminal shows, and what follows.

In: the objects. Out: sentences and rows of text. Invariant: what is concluded follows from what was
found; where chance explains it as well, that is said.
"""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import TYPE_CHECKING

from mobiledeploy.network import describe_images

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
_FIELDS = 8
_IN_WORDS = ("count", "sha256")  # what the line of the part itself says


def headline(difference: Difference) -> Iterator[str]:
    """Yield the answer, in at most three sentences."""
    if difference.same:
        yield "No difference: the same bytes, made from the same."
        return
    inputs = [part.name for part in difference.changed_parts]
    encodings, files = difference.encodings, difference.files
    if len(inputs) == 1:
        yield f"What went in differs in one thing, {inputs[0]}: all else follows from it."
    elif inputs:
        yield (
            f"What went in differs in {_listed(inputs)}. To tell which of them matters, change one"
            " at a time."
        )
    elif encodings is not None and not encodings.same_network:
        yield (
            "All that went in is the same, the int8 network is not: float arithmetic of another"
            " machine, or a manifest that was edited."
        )
    elif difference.other_format:
        yield "The same network from the same, in two formats."
    elif encodings is None:
        yield "All that went in is the same, the file is not."
    else:
        yield "All that went in and the int8 network are the same; only the file differs."
    if inputs and files.same_bytes:
        yield "The bytes are the same all the same: what differs does not reach the artifact."
    outputs = difference.outputs
    if outputs is not None:
        yield from judged(outputs)


def judged(outputs: OutputsDiff) -> Iterator[str]:
    """Yield what the outputs say about which is better."""
    if outputs.figures and outputs.figures["differing_logits"] == 0:
        yield f"Their logits are the same on all {outputs.count} images."
        return
    losses = f"A {loss_in_words(outputs.a_loss)}, B {loss_in_words(outputs.b_loss)}"
    yield from _decided(outputs.nearer, "nearer to float", losses)
    if outputs.right is not None:
        accuracies = [(outputs.both_right or 0) + n for n in (outputs.right.a, outputs.right.b)]
        shares = ", ".join(
            f"{side} {right / outputs.count:.3f}"
            for side, right in zip("AB", accuracies, strict=True)
        )
        yield from _decided(outputs.right, "more accurate", f"top-1 {shares}")


def _decided(duel: PairedComparison | None, better: str, figures: str) -> Iterator[str]:
    """Yield which side wins, or that it may be chance."""
    if duel is None:
        return
    images = f"{figures}; {duel.a} images speak for A, {duel.b} for B"
    if duel.chance < _SIGNIFICANT:
        yield f"{'A' if duel.a > duel.b else 'B'} is {better}: {images} (p = {duel.chance:.1g})."
    else:
        yield f"Neither is shown to be {better}: {images} (p = {duel.chance:.2g})."


def encodings_in_words(encodings: EncodingsDiff) -> Iterator[str]:
    """Yield what happened to the encodings of activations."""
    moved = encodings.moved
    if encodings.common and not moved:
        yield f"Encodings: the same for all {encodings.common} activations."
    elif moved:
        ratios = [pair.scale_ratio for pair in moved]
        yield (
            f"Encodings: {len(moved)} of {encodings.common} activations moved. Scale of B over A:"
            f" {min(ratios):.2f} to {max(ratios):.2f}, median {statistics.median(ratios):.2f}."
        )
    for side, names in (("A", encodings.only_a), ("B", encodings.only_b)):
        if names:
            shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            yield f"Encodings: {len(names)} activations are quantized in {side} alone: {shown}."
    if not moved and not encodings.only_a and not encodings.only_b and not encodings.same_network:
        yield "The int8 weights or biases differ: they were rounded in another way."


def rows(difference: Difference) -> list[tuple[str, str, str]]:
    """Return the table of what went in: a row per part, and one below it per field that differs."""
    table: list[tuple[str, str, str]] = []
    for part in difference.parts:
        table.append((part.name, part.a, part.b if part.changes else "the same"))
        untold = [change for change in part.changes if change.field not in _IN_WORDS]
        table += [(f"  {c.field}", c.a or "-", c.b or "-") for c in untold[:_FIELDS]]
        if len(untold) > _FIELDS:
            table.append((f"  {len(untold) - _FIELDS} more", "", ""))
    recorded = difference.a_recorded, difference.b_recorded
    if any(recorded):
        table.append(("as exported", _recorded(recorded[0]), _recorded(recorded[1])))
    return table


def _recorded(loss: FloatComparison | None) -> str:
    if loss is None:
        return "not measured"
    where = Path(loss.source).name
    return f"{loss_in_words(loss)} with float, on {describe_images(loss.images, where)}"


def encoding_rows(encodings: EncodingsDiff) -> list[tuple[str, str, str, str]]:
    """Return a row per activation that moved: its name, both ranges, the ratio of the scales."""
    return [
        (
            f"{pair.layer} {pair.name}".strip(),
            f"{pair.a.low:.3g} to {pair.a.high:.3g}",
            f"{pair.b.low:.3g} to {pair.b.high:.3g}",
            f"{pair.scale_ratio:.2f}",
        )
        for pair in encodings.moved
    ]


def files_in_words(files: FilesDiff) -> Iterator[str]:
    """Yield what happened to the files."""
    same = "the same bytes" if files.same_bytes else "other bytes"
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
        yield "Operators: the same, as often."
    if any(share is not None for share in files.int8_macs_shares):
        a, b = (
            "not counted" if share is None else f"{share:.1%}" for share in files.int8_macs_shares
        )
        yield f"Multiply-accumulates in int8: {a} and {b}."


def outputs_in_words(outputs: OutputsDiff) -> Iterator[str]:
    """Yield how B's outputs differ from A's."""
    where = describe_images(outputs.count, outputs.source)
    found = outputs.figures
    if not found:
        yield f"Outputs on {where}: not compared with one another."
    elif found["differing_logits"] == 0:
        yield f"Outputs on {where}: 0 of {found['logits']:.0f} logits differ."
    else:
        yield (
            f"Outputs on {where}: {found['differing_logits']:.0f} of {found['logits']:.0f} logits"
            f" differ; B against A {decibels(found['sqnr_db'])}, top-1 agreement"
            f" {found['top1_agreement']:.3f} ({found['top1_agreement_low']:.3f} to"
            f" {found['top1_agreement_high']:.3f})."
        )


def loss_in_words(loss: FloatComparison | None) -> str:
    """Return SQNR and agreement with float."""
    if loss is None:
        return "not measured"
    return f"{decibels(loss.sqnr_db)}, {loss.agreement:.3f}"


def decibels(value: float) -> str:
    """Return an SQNR for people."""
    return "equal" if math.isinf(value) and value > 0 else f"{value:.1f} dB"


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
