"""`mobiledeploy parity`: whether artifacts compute what their network computes."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mobiledeploy.cli import model_options as options
from mobiledeploy.cli.device_options import DEVICE, PYTHON, RUNNER, TIMEOUT, split_runners
from mobiledeploy.cli.output import print_result, print_table, print_wrapped, reserve_stdout
from mobiledeploy.cli.progress import showing_progress
from mobiledeploy.cli.values import not_nan, refuse_without, with_manifests
from mobiledeploy.utils.files import require_artifact

if TYPE_CHECKING:
    from mobiledeploy.parity.types import ParityReport


_WORST = 12
_LISTED = 15
_COLOURS = {"passed": "green", "FAILED": "bold red"}


def parity(
    context: typer.Context,
    artifacts: Annotated[
        list[Path],
        typer.Argument(
            metavar="ARTIFACT",
            help="Artifacts of one network, with their manifests beside them.",
        ),
    ],
    *,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Images: a folder or a .npz file. [default: the calibration images]",
        ),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Number of images. [default: all]")
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="Checkpoint. [default: the path that the manifest records]"
        ),
    ] = None,
    allow_mismatch: Annotated[bool, options.ALLOW_MISMATCH] = False,
    calib_data: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Calibration images. [default: the path that the manifest records]",
        ),
    ] = None,
    min_agreement: Annotated[
        float | None,
        typer.Option(
            metavar="FRACTION",
            min=0,
            max=1,
            help="Minimum top-1 agreement with float. [default: 0.85]",
        ),
    ] = None,
    min_sqnr: Annotated[
        float | None,
        typer.Option(
            metavar="DB",
            callback=not_nan,
            help="Minimum SQNR against float. [default: by architecture, 12 to 15]",
        ),
    ] = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="Also print the quantization noise of the layers.")
    ] = False,
    resizes: Annotated[
        bool,
        typer.Option(
            "--resizes",
            help="Also print what the resize functions of Android and iOS would change.",
        ),
    ] = False,
    device_uri: Annotated[str | None, DEVICE] = None,
    python: Annotated[str, PYTHON] = "",
    runners: Annotated[list[str] | None, RUNNER] = None,
    timeout: Annotated[float, TIMEOUT] = 600,
    baseline: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Earlier --json document; fail if a metric got worse."),
    ] = None,
    json_path: Annotated[
        Path | None,
        typer.Option("--json", metavar="PATH", help="Write a JSON document (- for stdout)."),
    ] = None,
    junit_path: Annotated[
        Path | None, typer.Option("--junit", metavar="PATH", help="Write JUnit XML for CI.")
    ] = None,
    markdown_path: Annotated[
        Path | None,
        typer.Option(
            "--markdown",
            metavar="PATH",
            help="Write Markdown, and append it to $GITHUB_STEP_SUMMARY if that is set.",
        ),
    ] = None,
    html_path: Annotated[
        Path | None,
        typer.Option("--html", metavar="PATH", help="Write an HTML report."),
    ] = None,
) -> None:
    """Check each step from float to artifact; exit 1 if one fails."""
    from mobiledeploy.parity.report import write
    from mobiledeploy.utils.progress import step

    if device_uri is None:
        refuse_without("--device URI", context, ("python", "runners", "timeout"))
    targets = write.Targets(
        json=json_path,
        junit=junit_path,
        markdown=markdown_path,
        summary=os.environ.get("GITHUB_STEP_SUMMARY", "") if markdown_path else "",
        html=html_path,
    )
    # first, because errors are reported to these files: they must not overwrite an artifact
    targets.require_no_overwrite((*with_manifests(artifacts), data, weights, calib_data, baseline))
    reserve_stdout(*targets.files)
    with write.errors_reported(targets, artifacts), showing_progress():
        targets.require_writable()
        for artifact in artifacts:
            require_artifact(artifact)  # a missing file is an error before PyTorch is loaded
        with step("Loading PyTorch and the runtimes"):
            from mobiledeploy.artifact.manifest import read_manifest
            from mobiledeploy.devices.open import open_device
            from mobiledeploy.parity.baseline import read_baseline
            from mobiledeploy.parity.ladder import require_passed
            from mobiledeploy.pipeline.check_parity import check_parity
        stored = None if baseline is None else read_baseline(baseline)
        with ExitStack() as stack:
            device = None
            if device_uri is not None:
                runner, built = split_runners(runners)
                opened = open_device(
                    device_uri,
                    python=python,
                    runner=runner,
                    built_runners=built,
                    timeout_s=timeout,
                )
                device = stack.enter_context(opened)
            report = check_parity(
                artifacts,
                data,
                samples=samples,
                min_sqnr_db=min_sqnr,
                min_top1_agreement=min_agreement,
                weights=weights,
                calib_data=calib_data,
                layers=layers or html_path is not None,
                worst=_WORST if html_path is not None else 0,
                baseline=stored,
                device=device,
                resizes=resizes,
                allow_mismatch=allow_mismatch,
            )
    _print_table(report)
    if layers:
        _print_layers(report)
    write.write_all(report, targets, read_manifest(artifacts[0]))
    require_passed(report)


def _print_table(report: ParityReport) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from mobiledeploy.parity.report.rows import (
        headline,
        images_used,
        loss,
        notes,
        rows,
    )

    print_result(f"Parity of {report.network}, {report.precision}")
    print_wrapped(images_used(report))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("rung", overflow="fold")
    table.add_column("against")
    table.add_column("metrics")
    table.add_column("vs float", justify="right")
    if report.data.labelled:
        table.add_column("top-1", justify="right")
    table.add_column("verdict")
    for row in rows(report):
        cells = [row.rung, row.against, row.metrics, row.versus_float]
        accuracy = [row.accuracy] if report.data.labelled else []
        table.add_row(*cells, *accuracy, Text(row.verdict, _COLOURS.get(row.verdict, "")))
    print_table(table)
    for rung in report.rungs:
        for failure in rung.failures:
            print_result(f"{rung.title}: {failure}")
    for note in notes(report):
        print_result(note)
    for text in report.regressions or ():
        print_result(f"Worse than the baseline: {text}")
    if lost := loss(report):
        print_wrapped(lost)
    print_result(f"{headline(report)}.")


def _print_layers(report: ParityReport) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("layer", overflow="fold")
    for heading in ("SQNR drop, dB", "SQNR at output, dB", "own SQNR, dB"):
        table.add_column(heading, justify="right")
    if not report.layers:
        print_result("Nothing is quantized: there are no layers to compare with float.")
        return
    worst = sorted(report.layers, key=lambda layer: -layer.sqnr_drop_db)[:_LISTED]
    for layer in worst:
        figures = (layer.sqnr_drop_db, layer.sqnr_db, layer.own_sqnr_db)
        table.add_row(layer.name, *(f"{figure:.1f}" for figure in figures))
    print_result(f"The layers where the SQNR drops most, {len(worst)} of {len(report.layers)}:")
    print_table(table)
    if report.first_noisy_layer:
        print_result(f"First layer with too much noise of its own: {report.first_noisy_layer}.")
