"""Options of the commands that can run on a device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mobiledeploy.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mobiledeploy.devices.python_device import RunnerKind

_LONGEST_S = 7 * 24 * 3600

DEVICE = typer.Option(
    "--device",
    metavar="URI",
    help="local, ssh://[user@]host[:port], adb://[SERIAL] or exec:COMMAND.",
)
SET_UP_URI = typer.Argument(
    metavar="URI", help="ssh://[user@]host[:port], adb://[SERIAL] or exec:COMMAND."
)
PYTHON = typer.Option(
    "--python",
    metavar="PATH",
    help="Python on the device (ssh). [default: from `device setup`, else python3]",
    show_default=False,
)
RUNNER = typer.Option(
    "--runner",
    metavar="native|python|PATH",
    help="What runs the artifacts on the device: the native runner of `device setup`, Python, or"
    " (adb, can be repeated) an executor_runner or onnxruntime_perf_test that you built."
    " [default: what is set up]",
    show_default=False,
)
TIMEOUT = typer.Option(
    "--timeout",
    metavar="SECONDS",
    min=1,
    max=_LONGEST_S,
    help="Time limit of one session on the device.",
)


def split_runners(values: Sequence[str] | None) -> tuple[RunnerKind, tuple[Path, ...]]:
    """Return the kind of runner that was named, "" if none was, and the runners' files.

    Raises:
        UsageError: A kind and something else were named.
    """
    given = tuple(values or ())
    kinds: list[RunnerKind] = []
    for kind in ("native", "python"):
        kinds += [kind] if kind in given else []
    if kinds and len(given) > 1:
        raise UsageError(
            f"--runner {kinds[0]} and another --runner exclude one another.",
            remedy="Leave one of them out.",
        )
    return (kinds[0], ()) if kinds else ("", tuple(Path(value) for value in given))
