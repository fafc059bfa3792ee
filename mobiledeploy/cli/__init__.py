"""The command line: parse options, call the API, print results, exit. One module per command.

torch, onnx and executorch are imported inside the commands, so that `--help` is fast.
"""

from __future__ import annotations

import _thread
import signal
import sys
import threading
import traceback
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from typer.exceptions import TyperException

from mobiledeploy import __version__
from mobiledeploy.cli.bench import bench as bench_command
from mobiledeploy.cli.command import Command
from mobiledeploy.cli.compare import compare as compare_command
from mobiledeploy.cli.device import device as device_commands
from mobiledeploy.cli.diff import diff as diff_command
from mobiledeploy.cli.doctor import doctor as doctor_command
from mobiledeploy.cli.evaluate import evaluate as evaluate_command
from mobiledeploy.cli.export import export as export_command
from mobiledeploy.cli.inspect import inspect as inspect_command
from mobiledeploy.cli.models import models as models_command
from mobiledeploy.cli.output import UNREAD, Stdout, console, explain, reserve_stdout, silence
from mobiledeploy.cli.parity import parity as parity_command
from mobiledeploy.cli.reproduce import reproduce as reproduce_command
from mobiledeploy.cli.sensitivity import sensitivity as sensitivity_command
from mobiledeploy.cli.sweep import sweep as sweep_command
from mobiledeploy.cli.usage import usage_error
from mobiledeploy.errors import MobileDeployError, RuntimeFailedError
from mobiledeploy.utils import quiet
from mobiledeploy.utils.full_disk import no_room
from mobiledeploy.utils.memory import out_of_memory
from mobiledeploy.utils.missing_library import missing_library

if TYPE_CHECKING:
    from collections.abc import Sequence

app = typer.Typer(
    name="mobiledeploy",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_debug = False
_INTERRUPTED = 130  # what shells expect of a command that Ctrl-C ended: 128 + SIGINT
_stopped_by = signal.SIGINT


def _show_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"mobiledeploy {__version__}\n")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Show warnings of torch, onnx and executorch.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[  # noqa: ARG001 - the callback answers
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Deploy a trained MobileNet to an ARM phone.

    The result is one int8 network, as ExecuTorch .pte, ONNX and LiteRT .tflite: all give the same
    logits, bit for bit.
    """
    global _debug  # noqa: PLW0603 - one switch for the process, set once at start-up
    _debug = debug
    quiet.be_verbose(verbose)
    context.with_resource(quiet.quietly())


app.command("export", cls=Command)(export_command)
app.command("parity", cls=Command)(parity_command)
app.command("evaluate", cls=Command)(evaluate_command)
app.command("models", cls=Command)(models_command)
app.command("sensitivity", cls=Command)(sensitivity_command)
app.command("sweep", cls=Command)(sweep_command)
app.command("bench", cls=Command)(bench_command)
app.command("compare", cls=Command)(compare_command)
app.command("inspect", cls=Command)(inspect_command)
app.command("diff", cls=Command)(diff_command)
app.command("reproduce", cls=Command)(reproduce_command)
app.command("doctor", cls=Command)(doctor_command)
app.add_typer(device_commands, name="device")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with the documented code (see `mobiledeploy.errors`)."""
    sys.unraisablehook = _interrupt_again
    _handle_signals()
    try:
        code = _run(arguments)
    except OSError:  # stderr cannot be written, so the error cannot be reported
        silence(sys.stderr)
        code = RuntimeFailedError.exit_code
    sys.exit(code)


def _handle_signals() -> None:
    """Stop on SIGTERM (`timeout`, a CI limit) and SIGHUP (a closed terminal) as on Ctrl-C.

    A signal that the parent process ignores, as under `nohup`, stays ignored.
    """
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _interrupt)


def _interrupt(number: int, _frame: object) -> None:
    global _stopped_by  # noqa: PLW0603 - a process ends once
    _stopped_by = signal.Signals(number)
    raise KeyboardInterrupt


def _interrupt_again(ignored: sys.UnraisableHookArgs) -> None:
    """Repeat a Ctrl-C that arrived while a destructor or weakref callback ran.

    Python drops exceptions there, and torch's tracing spends much of its time in such callbacks.
    """
    if ignored.exc_type is KeyboardInterrupt:
        # a little later, because at once it would arrive in this hook
        again = threading.Timer(0.05, _thread.interrupt_main)
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(ignored)


def _run(arguments: Sequence[str] | None) -> int:
    """Run one command; return its exit code, or that of stdout if it could not be written."""
    reserve_stdout()
    stdout = Stdout(sys.stdout)
    with redirect_stdout(stdout):
        code = _run_command(arguments)
    try:
        stdout.require_written()
    except BrokenPipeError:
        return code or UNREAD
    except RuntimeFailedError as error:
        explain(error)
        return code or error.exit_code
    return code


def _run_command(arguments: Sequence[str] | None) -> int:
    """Run one command; return its exit code."""
    try:
        code = app(args=arguments, prog_name="mobiledeploy", standalone_mode=False)
    except MobileDeployError as error:
        explain(error)
        _traceback_if_debugging()
        return error.exit_code
    except TyperException as error:
        _explain_usage(error)
        return error.exit_code
    except SystemExit as stop:
        # Typer exits with 0 after printing completions, and with 1, the code of a failed gate, if
        # the reader of stderr has gone
        return UNREAD if stop.code else 0
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except Exception as error:
        _explain_unexpected(error)
        _traceback_if_debugging()
        return RuntimeFailedError.exit_code
    if code == _INTERRUPTED:  # Typer turns Ctrl-C into this code as well
        console().print("Stopped. No incomplete file was left behind.")
        return 128 + _stopped_by
    return code if isinstance(code, int) else 0


def _explain_unexpected(error: Exception) -> None:
    """Print that memory or a disk ran out or a library is missing, or else that there is a bug."""
    if known := out_of_memory(error) or no_room(error) or missing_library(error):
        explain(known)
        return
    console().print(f"Unexpected {type(error).__name__}: {error}")
    console().print(
        "This is a bug in mobiledeploy. Please report it with the output of"
        " `mobiledeploy --debug ...`."
    )


def _explain_usage(error: TyperException) -> None:
    """Print a usage error; if no command was given at all, Typer's message is the help."""
    if error.message.startswith("Usage: "):
        console().print(error.message, soft_wrap=True)
    else:
        explain(usage_error(error))


def _traceback_if_debugging() -> None:
    if _debug:
        console().print(traceback.format_exc(), end="", soft_wrap=True)
