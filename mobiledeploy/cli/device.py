"""`mobiledeploy device`: what a device can run, and installing what it lacks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from mobiledeploy.artifact.artifact import Format
from mobiledeploy.cli.command import Command
from mobiledeploy.cli.device_options import PYTHON, RUNNER, TIMEOUT
from mobiledeploy.cli.doctor import print_checks
from mobiledeploy.cli.output import console, print_json
from mobiledeploy.cli.progress import showing_progress
from mobiledeploy.errors import RuntimeFailedError, UsageError

URI = typer.Argument(
    metavar="URI", help="local, ssh://[user@]host[:port], adb://[SERIAL] or exec:COMMAND."
)

device = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@device.callback()
def _device() -> None:
    """Show what a device can run, and install what it lacks."""


@device.command(cls=Command)
def check(
    uri: Annotated[str, URI],
    *,
    python: Annotated[str, PYTHON] = "",
    runners: Annotated[list[Path] | None, RUNNER] = None,
    timeout: Annotated[float, TIMEOUT] = 600,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document to stdout.")
    ] = False,
) -> None:
    """Show what a device can run; exit 4 if it is nothing."""
    from mobiledeploy.devices.open import open_device
    from mobiledeploy.doctor import examine_device

    given = tuple(runners or ())
    with (
        showing_progress(),
        open_device(uri, python=python, runners=given, timeout_s=timeout) as place,
    ):
        checks = examine_device(place.host)
    able = any(c.state == "ok" for c in checks if c.name in [each.suffix for each in Format])
    if as_json:
        from mobiledeploy.cli.check_documents import DeviceDocument

        print_json(DeviceDocument(uri=uri, able=able, checks=checks).model_dump(mode="json"))
    else:
        print_checks(checks)
    if not able:
        raise RuntimeFailedError(
            f"{uri} can run neither .onnx nor .pte nor .tflite.",
            remedy="Follow the advice below the lines marked missing or broken.",
        )


@device.command(cls=Command)
def setup(
    uri: Annotated[str, typer.Argument(metavar="URI", help="ssh://[user@]host[:port].")],
    *,
    executorch: Annotated[
        bool, typer.Option("--executorch", help="Also install ExecuTorch and torch (large).")
    ] = False,
    litert: Annotated[
        bool, typer.Option("--litert", help="Also install LiteRT, for .tflite.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    python: Annotated[
        str,
        typer.Option("--python", metavar="PATH", help="Python that creates the environment."),
    ] = "python3",
    timeout: Annotated[float, TIMEOUT] = 1800,
) -> None:
    """Install runtimes on an ssh device, in an environment of their own."""
    from mobiledeploy.devices.ssh import ENVIRONMENT, SshDevice, requirements

    if not uri.startswith("ssh://"):
        raise UsageError(
            f"{uri} cannot be set up: only ssh devices can.",
            remedy="Install numpy and onnxruntime into the Python that the command starts.",
        )
    place = SshDevice(uri, python=python, timeout_s=timeout)
    wanted = requirements(executorch=executorch, litert=litert)
    console().print(
        f"On {uri}: create the virtual environment {ENVIRONMENT} with {python} (an existing one is"
        f" replaced) and install {', '.join(wanted)} into it. Nothing else is changed.",
        soft_wrap=True,
    )
    if not yes and not _confirmed():
        raise typer.Abort
    with showing_progress(), place:
        place.install(wanted)
    console().print(f"Next: mobiledeploy device check {uri}", soft_wrap=True)


def _confirmed() -> bool:
    """Ask whether to continue.

    Raises:
        UsageError: there is nobody to answer.
    """
    try:
        return typer.confirm("Continue?", err=True)
    except typer.Abort:
        if sys.stdin is not None and sys.stdin.isatty():  # Ctrl-C
            raise
        raise UsageError(
            "There is no terminal to confirm this at.", remedy="Pass --yes to confirm it."
        ) from None
