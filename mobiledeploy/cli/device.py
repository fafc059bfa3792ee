"""`mobiledeploy device`: what a device can do, and what it lacks."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from mobiledeploy.cli.device_options import PYTHON, RUNNER, TIMEOUT
from mobiledeploy.cli.doctor import print_checks
from mobiledeploy.cli.output import console, print_json
from mobiledeploy.cli.progress import showing_progress
from mobiledeploy.errors import RuntimeFailedError, UsageError

SCHEMA = 1
URI = typer.Argument(metavar="URI", help="As --device of `mobiledeploy bench`.")

device = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@device.callback()
def _device() -> None:
    """See what a device can run, and install what it lacks."""


@device.command()
def check(
    uri: Annotated[str, URI],
    *,
    python: Annotated[str, PYTHON] = "",
    runners: Annotated[list[Path] | None, RUNNER] = None,
    timeout: Annotated[float, TIMEOUT] = 600,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Show what a device can run and what stands in the way; exit 4 if it can run nothing."""
    from mobiledeploy.devices.open import open_device
    from mobiledeploy.doctor import examine_device

    given = tuple(runners or ())
    with (
        showing_progress(),
        open_device(uri, python=python, runners=given, timeout_s=timeout) as place,
    ):
        checks = examine_device(place.host)
    able = any(c.state == "ok" for c in checks if c.name in (".onnx", ".pte"))
    if as_json:
        document = {"schema": SCHEMA, "kind": "mobiledeploy.device", "uri": uri, "able": able}
        print_json(document | {"checks": [asdict(c) for c in checks]})
    else:
        print_checks(checks)
    if not able:
        raise RuntimeFailedError(
            f"{uri} can run neither .onnx nor .pte.",
            remedy="Do what stands beside these lines.",
        )


@device.command()
def setup(
    uri: Annotated[str, typer.Argument(metavar="URI", help="ssh://[user@]host[:port].")],
    *,
    executorch: Annotated[
        bool, typer.Option("--executorch", help="ExecuTorch and torch as well (large).")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it without asking.")] = False,
    python: Annotated[
        str, typer.Option("--python", metavar="PATH", help="What to make the environment with.")
    ] = "python3",
    timeout: Annotated[float, TIMEOUT] = 1800,
) -> None:
    """Install runtimes into a virtual environment of mobiledeploy's own on a machine over ssh."""
    from mobiledeploy.devices.ssh import ENVIRONMENT, SshDevice, requirements

    if not uri.startswith("ssh://"):
        raise UsageError(
            f"{uri} cannot be set up; only machines over ssh can.",
            remedy="Install numpy and onnxruntime into the Python that the command starts.",
        )
    wanted = requirements(executorch=executorch)
    console().print(
        f"On {uri}, with {python}: make the virtual environment {ENVIRONMENT} (anew, if it is"
        f" there) and install {', '.join(wanted)} into it. Nothing else is touched.",
        soft_wrap=True,
    )
    if not yes and not typer.confirm("Go on?", err=True):
        raise typer.Abort
    with showing_progress(), SshDevice(uri, python=python, timeout_s=timeout) as place:
        place.install(wanted)
    console().print(f"Next: mobiledeploy device check {uri}", soft_wrap=True)
