"""Options that several commands have, because each of them can run on a device."""

from __future__ import annotations

import typer

_LONGEST = 7 * 24 * 3600  # seconds; a clock has an end

DEVICE = typer.Option(
    "--device",
    metavar="URI",
    help="local, ssh://[user@]host[:port], adb://[SERIAL] or exec:COMMAND.",
)
PYTHON = typer.Option(
    "--python",
    metavar="PATH",
    help="The interpreter over there (ssh). [default: that of `device setup`, or python3]",
    show_default=False,
)
RUNNER = typer.Option(
    "--runner",
    metavar="PATH",
    help="An Android executor_runner or onnxruntime_perf_test (adb); may be given twice.",
)
TIMEOUT = typer.Option(
    "--timeout",
    metavar="S",
    min=1,
    max=_LONGEST,
    help="How long one session on the device may take.",
)
