"""`mobiledeploy compare`: results of `bench` side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mobiledeploy.cli.output import print_json, print_table, reserve_stdout

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
    from dataclasses import asdict

    from mobiledeploy.bench.baseline import read_result
    from mobiledeploy.bench.compare import rows_of, to_html, to_markdown
    from mobiledeploy.utils.files import STDOUT, require_writable_files, write_text
    from mobiledeploy.utils.json_numbers import encode_floats

    documents = (markdown, html, STDOUT if as_json else None)
    require_writable_files(*documents, read=results)
    reserve_stdout(*documents)
    rows = rows_of([read_result(path) for path in results])
    for path, text in ((markdown, to_markdown(rows)), (html, to_html(rows))):
        if path is not None:
            write_text(path, text)
    if as_json:
        print_json(
            {
                "schema": 1,
                "kind": "mobiledeploy.compare",
                "rows": encode_floats([asdict(row) for row in rows]),
            }
        )
        return
    _print_table(rows)


def _print_table(rows: Sequence[Row]) -> None:
    from rich import box
    from rich.table import Table

    from mobiledeploy.bench.compare import HEADINGS

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("artifact, device, runtime", overflow="fold")
    for heading in HEADINGS[3:]:
        table.add_column(heading.replace(" ", "\n", 1), justify="right", no_wrap=True)
    for row in rows:
        artifact, device, runtime, *figures = row.cells
        table.add_row(f"{artifact}\n{device}\n{runtime}", *figures)
    print_table(table)
