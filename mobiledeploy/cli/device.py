"""`mobiledeploy device`: what a device can run, and setting it up."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mobiledeploy.artifact.artifact import Format
from mobiledeploy.cli.command import Command
from mobiledeploy.cli.device_options import (
    PYTHON,
    RUNNER,
    SET_UP_URI,
    TIMEOUT,
    split_runners,
)
from mobiledeploy.cli.device_report import report
from mobiledeploy.cli.doctor import print_checks
from mobiledeploy.cli.output import console, print_json
from mobiledeploy.cli.progress import showing_progress
from mobiledeploy.errors import RuntimeFailedError, UsageError

if TYPE_CHECKING:
    from mobiledeploy.devices.android.native import AdbDevice
    from mobiledeploy.devices.ssh import SshDevice

URI = typer.Argument(
    metavar="URI", help="local, ssh://[user@]host[:port], adb://[SERIAL] or exec:COMMAND."
)

_COMPILER = typer.Option(
    "--compiler",
    metavar="PATH",
    help="C++17 compiler for the device's processor, or zig. [default: that of the system]",
    show_default=False,
)

device = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@device.callback()
def _device() -> None:
    """Set a device up, show what it can run, and clean it."""


@device.command(cls=Command)
def check(
    uri: Annotated[str, URI],
    *,
    python: Annotated[str, PYTHON] = "",
    runners: Annotated[list[str] | None, RUNNER] = None,
    timeout: Annotated[float, TIMEOUT] = 600,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document to stdout.")
    ] = False,
) -> None:
    """Show what a device can run; exit 4 if it can run nothing."""
    from mobiledeploy.devices.open import open_device
    from mobiledeploy.doctor import examine_device

    runner, built = split_runners(runners)
    with (
        showing_progress(),
        open_device(
            uri, python=python, runner=runner, built_runners=built, timeout_s=timeout
        ) as place,
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
    uri: Annotated[str, SET_UP_URI],
    *,
    runner: Annotated[
        str,
        typer.Option(
            "--runner",
            metavar="native|python",
            help="Install the native runner, which needs nothing on the device, or packages into a"
            " Python there (ssh). [default: native]",
            show_default=False,
        ),
    ] = "",
    bundle_path: Annotated[
        Path | None,
        typer.Option("--bundle", metavar="PATH", help="Bundle that `device bundle` wrote."),
    ] = None,
    compiler: Annotated[str, _COMPILER] = "",
    executorch: Annotated[
        bool,
        typer.Option("--executorch", help="With Python: also install ExecuTorch and torch."),
    ] = False,
    litert: Annotated[
        bool, typer.Option("--litert", help="With Python: also install LiteRT, for .tflite.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    python: Annotated[
        str,
        typer.Option(
            "--python", metavar="PATH", help="With Python: the one that creates the environment."
        ),
    ] = "",
    timeout: Annotated[float, TIMEOUT] = 1800,
) -> None:
    """Install what runs artifacts on a device.

    --python, --executorch and --litert imply --runner python.
    """
    if runner not in ("", "native", "python"):
        raise UsageError(f"--runner is {runner!r}; expected native or python.")
    for_python = bool(python or executorch or litert)
    for_native = bool(bundle_path or compiler)
    if (for_python and (runner == "native" or for_native)) or (for_native and runner == "python"):
        raise UsageError(
            "--python, --executorch and --litert apply to Python, --bundle and --compiler to the "
            "native runner.",
            remedy="Leave one kind of options out.",
        )
    if for_python or runner == "python":
        _set_up_python(uri, python or "python3", executorch, litert, yes=yes, timeout_s=timeout)
    else:
        _set_up_native(uri, bundle_path, compiler, yes=yes, timeout_s=timeout)


@device.command(cls=Command)
def bundle(
    *,
    out: Annotated[Path, typer.Option("--out", metavar="PATH", help="The .tar.gz to write.")],
    architecture: Annotated[
        str,
        typer.Option("--architecture", metavar="NAME", help="aarch64 or x86_64."),
    ] = "aarch64",
    compiler: Annotated[str, _COMPILER] = "",
) -> None:
    """Write the native runner to one file, for another machine."""
    from mobiledeploy.devices.native.bundle import build_bundle, write_bundle

    with showing_progress():
        built = build_bundle(architecture, compiler=compiler)
        size = write_bundle(built, out)
    console().print(
        f"Wrote {out}: the native runner {built.key} for {architecture}, {size / 1e6:.1f} MB "
        f"({built.size_bytes / 1e6:.1f} MB on the device).",
        soft_wrap=True,
    )


@device.command(cls=Command)
def clean(
    uri: Annotated[str, SET_UP_URI],
    *,
    timeout: Annotated[float, TIMEOUT] = 600,
) -> None:
    """Remove every version of the native runner, and leftover files."""
    if uri.startswith("exec:"):
        from mobiledeploy.devices.native.bundle import clean_cache

        removed = clean_cache()
    else:
        with showing_progress(), _remote_device(uri, timeout) as place:
            removed = place.runner_place().clean()
    for folder in removed or ["nothing: the native runner is not there"]:
        console().print(f"Removed {folder}", soft_wrap=True)


device.command(cls=Command)(report)


def _set_up_native(
    uri: str, bundle_path: Path | None, compiler: str, *, yes: bool, timeout_s: float
) -> None:
    """Build or open the bundle, install it on a device, and test it there."""
    from contextlib import ExitStack

    from mobiledeploy.devices.native.bundle import build_bundle, unpack_bundle
    from mobiledeploy.devices.native.setup import install, remote_architecture, self_test
    from mobiledeploy.devices.open import open_device
    from mobiledeploy.devices.python_device import command_architecture, runs_native, split_command

    began = time.monotonic()
    with showing_progress(), ExitStack() as stack:
        place: SshDevice | AdbDevice | None = None
        if uri.startswith("exec:"):
            architecture = command_architecture(split_command(uri))
        else:
            place = _remote_device(uri, timeout_s)
            stack.enter_context(place)
            architecture = remote_architecture(place)
        built = (
            build_bundle(architecture, compiler=compiler)
            if bundle_path is None
            else unpack_bundle(bundle_path)
        )
        if built.architecture != architecture:
            raise UsageError(
                f"{bundle_path} is for {built.architecture}; {uri} has {architecture}.",
                remedy=f"Build one: `mobiledeploy device bundle --architecture {architecture}`.",
            )
        done = f"The native runner {built.key} is in {built.folder}."
        if place is not None:
            folder = place.runner_place().folder
            if not yes and not _confirmed(f"Copy the native runner to {folder} on {uri}?"):
                raise typer.Abort
            made = install(place, built)
            sent = f"{made.sent_bytes / 1e6:.1f} MB sent" if made.sent_bytes else "it was there"
            done = f"The native runner {built.key} is in {folder} on {uri} ({sent})."
    with showing_progress(), open_device(uri, runner="native", timeout_s=timeout_s) as tested:
        runtimes = self_test(tested)
    console().print(done, soft_wrap=True)
    took_s = time.monotonic() - began
    console().print(
        f"It runs there, with {' and '.join(runtimes)}. That took {took_s:.1f} s. "
        "`mobiledeploy device clean` removes it.",
        soft_wrap=True,
    )
    words = ["--device", shlex.quote(uri)]
    if uri.startswith("exec:") and not runs_native(split_command(uri)):
        words += ["--runner", "native"]  # by default, such a command is to start Python
    console().print("Next: mobiledeploy bench ARTIFACT", *words, soft_wrap=True)


def _remote_device(uri: str, timeout_s: float) -> SshDevice | AdbDevice:
    """Return a device that the native runner can be sent to.

    Raises:
        UsageError: The URI is of another kind.
    """
    from mobiledeploy.devices.android.native import AdbDevice
    from mobiledeploy.devices.ssh import SshDevice

    if uri.startswith("ssh://"):
        return SshDevice(uri, runner="native", timeout_s=timeout_s)
    if uri.startswith("adb://"):
        return AdbDevice(uri, timeout_s=timeout_s)
    raise UsageError(
        f"{uri} cannot be set up.",
        remedy="Use ssh://[user@]host[:port], adb://[SERIAL] or exec:COMMAND, for example "
        "exec:qemu-aarch64.",
    )


def _set_up_python(
    uri: str, python: str, executorch: bool, litert: bool, *, yes: bool, timeout_s: float
) -> None:
    """Create a virtual environment on an ssh device and install packages into it."""
    from mobiledeploy.devices.ssh import ENVIRONMENT, SshDevice, requirements

    if not uri.startswith("ssh://"):
        raise UsageError(
            f"Packages cannot be installed on {uri}: only ssh devices can be set up with Python.",
            remedy="Use --runner native, or install numpy and onnxruntime into the Python that the "
            "command starts.",
        )
    place = SshDevice(uri, python=python, timeout_s=timeout_s)
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


def _confirmed(question: str = "Continue?") -> bool:
    """Ask whether to continue.

    Raises:
        UsageError: there is nobody to answer.
    """
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:
        if sys.stdin is not None and sys.stdin.isatty():  # Ctrl-C
            raise
        raise UsageError(
            "There is no terminal to confirm this at.", remedy="Pass --yes to confirm it."
        ) from None
