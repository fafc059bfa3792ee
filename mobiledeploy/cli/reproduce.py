"""`mobiledeploy reproduce`: does a manifest still give the same bytes?"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from mobiledeploy.cli.output import console, print_json
from mobiledeploy.cli.progress import showing_progress

_NOT_THE_SAME = 1  # as documented in `mobiledeploy.errors`: a gate said no
_LISTED = 10


def reproduce(
    manifest: Annotated[
        Path, typer.Argument(metavar="MANIFEST", help="A .json, or the artifact that it describes.")
    ],
    *,
    weights: Annotated[
        Path | None, typer.Option(help="The checkpoint. [default: where the manifest says]")
    ] = None,
    calib_data: Annotated[
        Path | None,
        typer.Option(help="The images of the calibration. [default: where the manifest says]"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to keep what is built. [default: not kept]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Build an artifact again; exit 1 and say why if bytes differ."""
    from mobiledeploy.utils.progress import step

    with showing_progress():
        with step("Loading PyTorch and the exporters"):
            from mobiledeploy.diff.json_report import reproduction_document
            from mobiledeploy.pipeline import reproduce as reproducing
        done = reproducing.reproduce(manifest, weights=weights, calib_data=calib_data, out=out)
    say = partial(console().print, soft_wrap=True)
    if as_json:
        print_json(reproduction_document(done))
    elif done.difference is not None:
        from mobiledeploy.cli.diff import print_difference

        print_difference(done.difference, _LISTED)
    if done.same:
        say(f"Reproduced: the same bytes, sha256 {done.found_sha256}.")
        return
    say(f"NOT reproduced: {done.manifest}")
    for reason in done.reasons:
        say(f"  - {reason}")
    raise typer.Exit(_NOT_THE_SAME)
