"""`mobiledeploy parity`: does an artifact compute what its network computes, and if not, where?"""

from __future__ import annotations

import json
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mobiledeploy.cli.device_options import DEVICE, PYTHON, TIMEOUT
from mobiledeploy.cli.output import console, print_json, showing_progress

if TYPE_CHECKING:
    from mobiledeploy.types import ParityReport


_COLOURS = {
    "passed": "[green]passed[/]",
    "FAILED": "[bold red]FAILED[/]",
    "not judged": "not judged",
    "shown": "shown",
}


def parity(
    artifacts: Annotated[
        list[Path], typer.Argument(metavar="ARTIFACT...", help="Of one network, with manifests.")
    ],
    *,
    data: Annotated[
        Path | None,
        typer.Option(help="Images: a folder, or .npz. [default: those of the calibration]"),
    ] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="How many. [default: all]")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="The checkpoint. [default: where the manifest says]")
    ] = None,
    calib_data: Annotated[
        Path | None,
        typer.Option(help="The images of the calibration. [default: where the manifest says]"),
    ] = None,
    min_agreement: Annotated[
        float | None, typer.Option(min=0, max=1, help="Least agreement with float. [default: 0.85]")
    ] = None,
    min_sqnr: Annotated[
        float | None,
        typer.Option(metavar="DB", help="Least SQNR against float. [default: the family's]"),
    ] = None,
    device_uri: Annotated[str | None, DEVICE] = None,
    python: Annotated[str, PYTHON] = "",
    timeout: Annotated[float, TIMEOUT] = 600,
    json_path: Annotated[
        Path | None,
        typer.Option("--json", metavar="PATH", help="Write a JSON document; - is stdout."),
    ] = None,
) -> None:
    """Judge every step from float to artifact; exit 1 if one fails."""
    from mobiledeploy.files import write_whole
    from mobiledeploy.progress import step

    with showing_progress():
        with step("Loading PyTorch and the runtimes"):
            from mobiledeploy.check import check_parity
            from mobiledeploy.devices import open_device, run_artifact
            from mobiledeploy.report.document import to_document
            from mobiledeploy.verify.ladder import require
        with ExitStack() as stack:
            on_device = None
            if device_uri is not None:
                device = open_device(device_uri, python=python, timeout_s=timeout)
                on_device = partial(run_artifact, stack.enter_context(device))
            report = check_parity(
                artifacts,
                data,
                samples=samples,
                min_sqnr_db=min_sqnr,
                min_top1_agreement=min_agreement,
                weights=weights,
                calib_data=calib_data,
                on_device=on_device,
            )
    _print_table(report)
    document = to_document(report)
    if json_path is not None and str(json_path) == "-":
        print_json(document)
    elif json_path is not None:
        with write_whole(json_path) as part:
            part.write_text(json.dumps(document, indent=2) + "\n")
    require(report)


def _print_table(report: ParityReport) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from mobiledeploy.report.rows import headline, rows, used

    say = partial(console().print, markup=False, soft_wrap=True)
    say(f"Parity of {report.network}, {report.precision}, on {used(report)}")
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("rung", overflow="fold")
    table.add_column("against")
    table.add_column("figures")
    table.add_column("vs float", justify="right")
    if report.data.labelled:
        table.add_column("top-1", justify="right")
    table.add_column("verdict")
    for row in rows(report):
        cells = [row.rung, row.against, row.figures, row.versus_float]
        accuracy = [row.accuracy] if report.data.labelled else []
        table.add_row(*map(escape, (*cells, *accuracy)), _COLOURS[row.verdict])
    console().print(table)
    for rung in report.rungs:
        for failure in rung.all_failures:
            say(f"{rung.title}: {failure}")
    for note in dict.fromkeys(rung.note for rung in report.rungs if rung.note):
        say(f"Not judged: {note}.")
    say(f"{headline(report)}.")
