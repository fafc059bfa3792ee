"""The `adb` client: which phones it sees, and one command at a time."""

from __future__ import annotations

import shlex
import subprocess
from typing import TYPE_CHECKING

from mobiledeploy.errors import RuntimeFailedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

QUICK_S = 20.0  # for what takes no time: listing phones, removing a folder
_LAST_WORDS = 5


def choose(phones: Mapping[str, str], wanted: str) -> str:
    """Return the serial of the phone that is meant.

    Args:
        phones: Serial -> state, as `adb devices` lists them.
        wanted: A serial; "" for the only one.

    Raises:
        UsageError: several, or none of that serial.
        RuntimeFailedError: none, or one that cannot be used as it is.
    """
    listed = ", ".join(f"{serial} ({state})" for serial, state in phones.items())
    if not phones:
        raise RuntimeFailedError(
            "adb sees no phone.",
            remedy="Switch USB debugging on (developer options), connect it, and see whether "
            "`adb devices` lists it.",
        )
    if wanted and wanted not in phones:
        raise UsageError(f"adb sees no phone {wanted}; it sees {listed}.")
    if not wanted and len(phones) > 1:
        raise UsageError(
            f"adb sees several phones: {listed}.", remedy="Name one: --device adb://SERIAL"
        )
    serial = wanted or next(iter(phones))
    remedies = {
        "unauthorized": "Unlock it and allow USB debugging from this computer.",
        "offline": "Unplug it and plug it in again, or `adb reconnect`.",
        "no permissions": "The system does not let you use it: see Android's udev rules.",
    }
    state = phones[serial]
    if state != "device":
        raise RuntimeFailedError(
            f"The phone {serial} is {state}.", remedy=remedies.get(state, "See `adb devices`.")
        )
    return serial


def run_adb(arguments: list[str], *, timeout_s: float) -> str:
    """Run adb and return what it says, stdout and stderr together.

    Raises:
        RuntimeFailedError: there is no adb, it failed, or it took too long.
    """
    argv = ["adb", *arguments]
    try:
        done = subprocess.run(  # noqa: S603 - an argv, no shell here
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError:
        raise RuntimeFailedError(
            "There is no adb.", remedy="Install Android's platform-tools (Debian: adb)."
        ) from None
    except subprocess.TimeoutExpired:
        raise RuntimeFailedError(
            f"`adb {arguments[2] if len(arguments) > 2 else arguments[0]}` was not done after "
            f"{timeout_s:g} s and was stopped.",
            remedy="Is the phone still there? --timeout gives it longer.",
        ) from None
    if done.returncode:
        raise RuntimeFailedError(
            f"`adb {shlex.join(arguments)[:200]}` ended with code {done.returncode}. It said:\n"
            f"{tail(done.stdout)}",
            remedy="Check the cable, the phone's free space, and whether `adb devices` lists it.",
        )
    return done.stdout


def listed_phones() -> dict[str, str]:
    """Return the phones that adb sees: serial -> state."""
    said = run_adb(["devices"], timeout_s=QUICK_S)
    rows = said.partition("List of devices attached")[2].splitlines()
    return {
        serial: "no permissions" if state.startswith("no permissions") else state
        for serial, _, state in (row.strip().partition("\t") for row in rows if "\t" in row)
    }


def tail(text: str) -> str:
    """Return the last lines of what a program said."""
    return "\n".join(text.strip().splitlines()[-_LAST_WORDS:])
