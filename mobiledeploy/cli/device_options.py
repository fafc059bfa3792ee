"""Options of the commands that can run on a device."""

from __future__ import annotations

import typer

_LONGEST_S = 7 * 24 * 3600

DEVICE = typer.Option(
    "--device",
    metavar="URI",
    help="local, ssh://[user@]host[:port], adb://[SERIAL] or exec:COMMAND.",
)
PYTHON = typer.Option(
    "--python",
    metavar="PATH",
    help="Python on the device (ssh). [default: from `device setup`, else python3]",
    show_default=False,
)
RUNNER = typer.Option(
    "--runner",
    metavar="PATH",
    help="An executor_runner or onnxruntime_perf_test built for Android (adb). Can be repeated.",
)
TIMEOUT = typer.Option(
    "--timeout",
    metavar="SECONDS",
    min=1,
    max=_LONGEST_S,
    help="Time limit of one session on the device.",
)
