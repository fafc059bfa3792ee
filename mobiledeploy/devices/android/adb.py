"""The `adb` client: list phones, and run commands and copy files on one of them."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mobiledeploy.devices.command_output import last_output
from mobiledeploy.errors import RuntimeFailedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_QUICK_S = 20.0  # for commands that take no time, such as listing phones or removing a folder
_EXIT_CODE = "mobiledeploy-exit-code:"
_SHOWN = 200  # characters of a command
# adb's daemon ends only the shell of a broken connection, not what the shell has started
_KILL_AND_REMOVE = """for p in /proc/[0-9]*; do
case "$(readlink $p/cwd 2>/dev/null)" in {folder}) kill -9 ${{p##*/}};; esac
done
rm -rf {folder}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phone:
    """One phone.

    Attributes:
        serial: Its name for adb.
        uri: Its name in errors.
        timeout_s: How long one command may take.
    """

    serial: str
    uri: str
    timeout_s: float

    def shell(self, command: str, *, timeout_s: float | None = None) -> str:
        """Run a command in the phone's shell and return its output.

        adb also exits with 0 where the connection breaks, so the command prints its exit code.

        Raises:
            RuntimeFailedError: The command failed, or its exit code did not arrive.
        """
        whole = self._adb("shell", f"( {command}\n); echo {_EXIT_CODE}$?", timeout_s=timeout_s)
        output, mark, code = whole.rpartition(_EXIT_CODE)
        if not mark:
            raise RuntimeFailedError(
                f"The connection to {self.uri} broke.{last_output(whole)}",
                remedy="Check the cable, and whether `adb devices` still lists the phone.",
            )
        if int(code):
            raise RuntimeFailedError(
                f"`{command[:_SHOWN]}` on {self.uri} ended with code {int(code)}."
                f"{last_output(output)}",
                remedy="See the program's output. The artifact may need a newer version of it.",
            )
        return output

    def command(self, argv: list[str]) -> list[str]:
        """Return the argv that runs an argv on the phone, with its input and output connected."""
        return ["adb", "-s", self.serial, "shell", "-T", shlex.join(argv)]

    def identity(self) -> tuple[str, str]:
        """Return the phone's maker, model and chip, and its system.

        Raises:
            RuntimeFailedError: The phone does not answer.
        """
        properties = (
            "ro.product.manufacturer",
            "ro.product.model",
            "ro.build.version.release",
            "ro.product.cpu.abi",
            "ro.soc.model",
        )
        lines = self.shell("; ".join(f"getprop {name}" for name in properties)).splitlines()
        maker, model, release, abi, chip = (lines + [""] * len(properties))[: len(properties)]
        return " ".join(filter(None, (maker, model, chip))), f"Android {release} ({abi})"

    def push(self, source: Path, target: str) -> None:
        """Copy a file of this machine to a path on the phone.

        Raises:
            RuntimeFailedError: adb failed, for example because the phone's storage is full.
        """
        self._adb("push", str(source), target)

    def pull(self, source: str, target: Path) -> None:
        """Copy a file of the phone to a path on this machine.

        Raises:
            RuntimeFailedError: adb failed.
        """
        self._adb("pull", source, str(target))

    def remove_folder(self, folder: str) -> None:
        """Kill what runs in a folder of the phone and remove it, even if the connection just broke.

        If the phone does not come back within some seconds, the folder stays there.
        """
        with contextlib.suppress(RuntimeFailedError):  # the session's own error is raised already
            self._adb("wait-for-device", timeout_s=_QUICK_S)
            self.shell(_KILL_AND_REMOVE.format(folder=folder), timeout_s=_QUICK_S)

    def _adb(self, *arguments: str, timeout_s: float | None = None) -> str:
        return run_adb(["-s", self.serial, *arguments], timeout_s=timeout_s or self.timeout_s)


def choose(phones: Mapping[str, str], wanted: str) -> str:
    """Return the serial of the phone to use.

    Args:
        phones: Serial -> state, as `adb devices` lists them.
        wanted: A serial; "" for the only phone.

    Raises:
        UsageError: There are several phones, or none with that serial.
        RuntimeFailedError: There is no phone, or it is not ready.
    """
    listed = ", ".join(f"{serial} ({state})" for serial, state in phones.items())
    if not phones:
        raise RuntimeFailedError(
            "adb finds no phone.",
            remedy="Enable USB debugging in the developer options, connect the phone, and check "
            "that `adb devices` lists it.",
        )
    if wanted and wanted not in phones:
        raise UsageError(
            f"adb finds no phone {wanted}; it finds {listed}.", remedy="Use one of these serials."
        )
    if not wanted and len(phones) > 1:
        raise UsageError(
            f"adb finds several phones: {listed}.", remedy="Choose one: --device adb://SERIAL"
        )
    serial = wanted or next(iter(phones))
    remedies = {
        "unauthorized": "Unlock it and allow USB debugging from this computer.",
        "offline": "Unplug it and plug it in again, or run `adb reconnect`.",
        "no permissions": "Give your user access to it: see Android's udev rules.",
    }
    state = phones[serial]
    if state != "device":
        raise RuntimeFailedError(
            f"The state of the phone {serial} is {state!r}; expected 'device'.",
            remedy=remedies.get(state, "See `adb devices`."),
        )
    return serial


def listed_phones() -> dict[str, str]:
    """Return the phones that adb finds: serial -> state.

    Raises:
        RuntimeFailedError: adb is not installed, or it failed.
    """
    output = run_adb(["devices"], timeout_s=_QUICK_S)
    rows = output.partition("List of devices attached")[2].splitlines()
    return {
        serial: "no permissions" if state.startswith("no permissions") else state
        for serial, _, state in (row.strip().partition("\t") for row in rows if "\t" in row)
    }


def run_adb(arguments: list[str], *, timeout_s: float) -> str:
    """Run adb and return its output, stdout and stderr together.

    Raises:
        RuntimeFailedError: adb is not installed, it failed, or it took too long.
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
            "adb is not installed.", remedy="Install Android's platform-tools (Debian: adb)."
        ) from None
    except subprocess.TimeoutExpired:
        raise RuntimeFailedError(
            f"`adb {arguments[2] if len(arguments) > 2 else arguments[0]}` took more than "
            f"{timeout_s:g} s and was stopped.",
            remedy="Check that the phone is still connected, or raise --timeout.",
        ) from None
    if done.returncode:
        raise RuntimeFailedError(
            f"`adb {shlex.join(arguments)[:_SHOWN]}` ended with code {done.returncode}."
            f"{last_output(done.stdout)}",
            remedy="Check the cable, the phone's free space, and whether `adb devices` lists it.",
        )
    return done.stdout
