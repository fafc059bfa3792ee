"""`mobiledeploy compare`: results of `bench` side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mobiledeploy.cli.figures import TitledRow, print_figures
from mobiledeploy.cli.output import print_json, reserve_stdout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mobiledeploy.bench.compare import Row


def compare(
    results: Annotated[
        list[Path], typer.Argument(metavar="RESULT", help="JSON documents that `bench` wrote.")
    ],
    *,
    markdown: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Write the table as Markdown.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Write an HTML page with table and chart.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document to stdout.")
    ] = False,
) -> None:
    """Compare results of `bench`: latency, size, accuracy."""
    from mobiledeploy.bench.compare import HEADINGS, CompareDocument, rows_of, to_markdown
    from mobiledeploy.bench.json_report import TimesResult, read_result
    from mobiledeploy.utils.files import STDOUT, require_writable_files, write_text

    documents = (markdown, html, STDOUT if as_json else None)
    require_writable_files(*documents, read=results)
    reserve_stdout(*documents)
    rows = rows_of([read_result(path, TimesResult) for path in results])
    if markdown is not None:
        write_text(markdown, to_markdown(rows))
    if html is not None:
        from mobiledeploy.bench.compare_page import to_html  # loads matplotlib

        write_text(html, to_html(rows, HEADINGS))
    if as_json:
        print_json(CompareDocument(rows=rows).model_dump(mode="json"))
        return
    _print(rows)


def _print(rows: Sequence[Row]) -> None:
    from mobiledeploy.bench.compare import HEADINGS

    titled = []
    for row in rows:
        artifact, device, runtime, *figures = row.cells
        titled.append(
            TitledRow(title=artifact, details=(f"{runtime} on {device}",), figures=figures)
        )
    print_figures([heading.replace(" ", "\n", 1) for heading in HEADINGS[3:]], titled)
