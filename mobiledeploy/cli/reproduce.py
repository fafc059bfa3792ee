"""`mobiledeploy reproduce`: build an artifact again and compare the bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mobiledeploy.cli.output import print_json, print_result, reserve_stdout
from mobiledeploy.cli.progress import showing_progress
from mobiledeploy.utils.files import STDOUT, require_artifact

_NOT_REPRODUCED = 1  # the exit code of a failed gate, see `mobiledeploy.errors`
_LISTED = 10


def reproduce(
    manifest: Annotated[
        Path,
        typer.Argument(
            metavar="MANIFEST", help="A manifest (.json), or the artifact that it describes."
        ),
    ],
    *,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="Checkpoint. [default: the path that the manifest records]"
        ),
    ] = None,
    calib_data: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Calibration images. [default: the path that the manifest records]",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep the new artifact in this folder."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document to stdout.")
    ] = False,
) -> None:
    """Build an artifact again; exit 1 and say why if bytes differ."""
    from mobiledeploy.utils.progress import step

    require_artifact(manifest)  # a missing file is an error before PyTorch is loaded
    with showing_progress():
        with step("Loading PyTorch and the exporters"):
            from mobiledeploy.diff.json_report import reproduction_document
            from mobiledeploy.pipeline.reproduce import reproduce as build_again
        done = build_again(manifest, weights=weights, calib_data=calib_data, out=out)
    if as_json:
        reserve_stdout(STDOUT)
        print_json(reproduction_document(done))
    elif done.difference is not None:
        from mobiledeploy.cli.diff import print_difference

        print_difference(done.difference, _LISTED)
    if done.same:
        print_result(f"Reproduced: the same bytes, sha256 {done.found_sha256}.")
        return
    print_result(f"NOT reproduced: {done.manifest}")
    for reason in done.reasons:
        print_result(f"  - {reason}")
    raise typer.Exit(_NOT_REPRODUCED)
