"""`mobiledeploy parity`: does an artifact compute what its network computes?"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mobiledeploy.cli.output import console, print_json, showing_progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mobiledeploy.types import ParityReport, Rung


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
    min_agreement: Annotated[
        float | None, typer.Option(min=0, max=1, help="Least agreement with float. [default: 0.85]")
    ] = None,
    min_sqnr: Annotated[
        float | None, typer.Option(metavar="DB", help="Least SQNR against float. [default: 12]")
    ] = None,
    json_path: Annotated[
        Path | None,
        typer.Option("--json", metavar="PATH", help="Write a JSON document; - is stdout."),
    ] = None,
) -> None:
    """Check artifacts against their network; exit 1 if they fail."""
    from mobiledeploy.files import write_whole
    from mobiledeploy.progress import step

    with showing_progress():
        with step("Loading PyTorch and the runtimes"):
            from mobiledeploy import pipeline
            from mobiledeploy.verify.parity import Tolerances, require
        defaults = Tolerances()
        tolerances = Tolerances(
            min_agreement=defaults.min_agreement if min_agreement is None else min_agreement,
            min_sqnr_db=defaults.min_sqnr_db if min_sqnr is None else min_sqnr,
        )
        report = pipeline.check_parity(artifacts, data, samples=samples, tolerances=tolerances)
    _print_table(report)
    document = {"schema": 1} | asdict(report) | {"passed": report.passed}
    if json_path is not None and str(json_path) == "-":
        print_json(document)
    elif json_path is not None:
        with write_whole(json_path) as part:
            part.write_text(json.dumps(document, indent=2) + "\n")
    require(report)


def _print_table(report: ParityReport) -> None:
    from rich import box
    from rich.table import Table

    names = list(dict.fromkeys(rung.candidate for rung in report.rungs))
    console().print(f"Parity on {report.data_source}", markup=False, soft_wrap=True)
    for name in names:
        table = Table(title=name, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for heading in ("against", "figures", "verdict"):
            table.add_column(heading, overflow="fold")
        for rung in report.rungs:
            if rung.candidate == name:
                table.add_row(_short(rung.reference, names), _figures(rung), _verdict(rung))
        console().print(table)
    for note in dict.fromkeys(rung.note for rung in report.rungs if not rung.gated):
        console().print(f"Not judged: {note}.", markup=False, soft_wrap=True)


def _short(reference: str, names: Sequence[str]) -> str:
    """Return what an artifact is called beside the others: its suffix where that is enough."""
    suffixes = [Path(name).suffix for name in names]
    mine = Path(reference).suffix
    return mine if reference in names and suffixes.count(mine) == 1 else reference


def _figures(rung: Rung) -> str:
    if "differing_logits" in rung.metrics:
        return (
            f"{rung.metrics['differing_logits']:.0f} of {rung.metrics['logits']:.0f} logits differ"
        )
    return f"SQNR {rung.metrics['sqnr_db']:.1f} dB, agreement {rung.metrics['agreement']:.3f}"


def _verdict(rung: Rung) -> str:
    if not rung.gated:
        return "not judged"
    return "[green]passed[/]" if rung.passed else "[bold red]failed[/]"
