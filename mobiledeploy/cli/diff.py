"""`mobiledeploy diff`: how two artifacts differ, and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mobiledeploy.cli.output import print_json, print_note, print_result, print_table
from mobiledeploy.cli.progress import showing_progress
from mobiledeploy.utils.files import require_artifact

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mobiledeploy.diff.types import Difference, EncodingsDiff, Flip, OperatorChange

_NAME_WIDTH = 28
_SIDE = "a .pte, .onnx or .tflite file with its manifest beside it, or the manifest."


def diff(
    a: Annotated[Path, typer.Argument(metavar="A", help=f"Reference: {_SIDE}")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Candidate: the same kinds of file.")],
    *,
    data: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Run both on these images: a folder or a .npz file."),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Number of images to run. [default: all]"),
    ] = None,
    listed: Annotated[
        int,
        typer.Option(
            "--list",
            metavar="N",
            min=0,
            help="Maximum length of each list (encodings, operators, images).",
        ),
    ] = 10,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document to stdout.")
    ] = False,
) -> None:
    """Explain how two artifacts differ. Exit 0 whether or not they do."""
    from mobiledeploy.utils.progress import step

    for given in (a, b):
        require_artifact(given)  # a missing file is an error before PyTorch is loaded
    with showing_progress():
        with step("Loading PyTorch and the runtimes"):
            from mobiledeploy.diff.json_report import difference_document
            from mobiledeploy.diff.text import headline
            from mobiledeploy.pipeline.diff import diff as compare
        difference = compare(a, b, data, samples)
    if as_json:
        print_json(difference_document(difference))
        return
    print_difference(difference, listed)
    for line in headline(difference):
        print_result(line)


def print_difference(difference: Difference, listed: int) -> None:
    """Print all differences, at most `listed` lines of each list."""
    from mobiledeploy.diff import text

    print_result(f"A: {difference.a}")
    print_result(f"B: {difference.b}")
    _print_inputs(difference)
    if difference.encodings is not None:
        for line in text.describe_encodings(difference.encodings):
            print_result(line)
        _print_encodings(difference.encodings, listed)
    for line in text.describe_files(difference.files):
        print_result(line)
    _print_operators(difference.files.operators or (), listed)
    if difference.outputs is not None:
        print_result(text.describe_outputs(difference.outputs))
        _print_flips(difference.outputs.flips, listed)
    for note in difference.notes:
        print_note(note)


def _print_inputs(difference: Difference) -> None:
    from mobiledeploy.diff.text import input_rows

    _print_table(("", "A", "B"), input_rows(difference))


def _print_encodings(encodings: EncodingsDiff, listed: int) -> None:
    from mobiledeploy.diff.text import encoding_rows

    _print_list(
        ("activation", "range in A", "range in B", "scale B/A"), encoding_rows(encodings), listed
    )


def _print_operators(changes: Sequence[OperatorChange], listed: int) -> None:
    rows = [
        (change.where, f"{change.name} {change.datatype}".strip(), str(change.a), str(change.b))
        for change in changes
    ]
    _print_list(("where", "operator", "in A", "in B"), rows, listed)


def _print_flips(flips: Sequence[Flip], listed: int) -> None:
    rows = [
        (flip.image, flip.a, flip.b, f"{flip.margin:.2f}", flip.label or "unknown")
        for flip in flips
    ]
    _print_list(("image", "class in A", "class in B", "margin in A", "label"), rows, listed)


def _print_list(headings: Sequence[str], rows: Sequence[Sequence[str]], listed: int) -> None:
    if rows and listed:
        _print_table(headings, rows[:listed])
    if len(rows) > listed:
        print_result(f"{len(rows) - listed} more: --list {len(rows)} shows all of them.")


def _print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in headings:
        # names of images can be long, and are not readable when folded
        if heading == "image":
            table.add_column(heading, overflow="ellipsis", no_wrap=True, max_width=_NAME_WIDTH)
        else:
            table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*row)
    print_table(table)
