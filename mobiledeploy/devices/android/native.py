"""An Android phone with the native runner, which speaks the agent's protocol through adb's shell.

`mobiledeploy device setup` installs the runner below `/data/local/tmp`, with its own C library.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Self

from mobiledeploy.devices.android.adb import Phone, choose, listed_phones
from mobiledeploy.devices.command_output import last_output
from mobiledeploy.devices.native.place import START, RunnerPlace, explain_start
from mobiledeploy.devices.python_device import TIMEOUT_S, PythonDevice
from mobiledeploy.errors import MobileDeployError, RuntimeFailedError

if TYPE_CHECKING:
    from mobiledeploy.devices.host import Host

_TEMPORARY = "/data/local/tmp"  # where the shell's user may write and run programs
_HOME = f"{_TEMPORARY}/mobiledeploy"
_REFUSED = (126, 127)


class AdbDevice(PythonDevice):
    """`adb://SERIAL`, or `adb://` where only one phone is connected.

    Args:
        uri: The device.
        timeout_s: How long a task may take, and how long a session may send nothing.
    """

    def __init__(self, uri: str, *, timeout_s: float = TIMEOUT_S) -> None:
        super().__init__(uri, [], timeout_s=timeout_s, is_native=True)
        self._phone: Phone | None = None

    def __enter__(self) -> Self:
        """Choose the phone.

        Raises:
            UsageError: There are several phones, or none with that serial.
            RuntimeFailedError: There is no phone, or it is not ready.
        """
        serial = choose(listed_phones(), self.uri.removeprefix("adb://").strip("/"))
        self._phone = Phone(serial=serial, uri=self.uri, timeout_s=self._timeout_s)
        start = ["sh", "-c", START, "sh", self.runner_place().folder, _TEMPORARY]
        self._argv = self._phone.command(start)
        return self

    @cached_property
    def host(self) -> Host:
        """Return the phone's description.

        Raises:
            RuntimeFailedError: The phone does not answer, or has no native runner.
        """
        described = super().host
        assert self._phone is not None, "the device has not been entered"
        model, system = self._phone.identity()
        return replace(described, model=model, os=system)

    def runner_sha256(self) -> str:
        """Return the sha256 that stands for the native runner's files on the device."""
        return self.runner_place().sums_sha256()

    def runner_place(self) -> RunnerPlace:
        """Return where the native runner is kept on the phone."""
        assert self._phone is not None, "the device has not been entered"
        return RunnerPlace(
            uri=self.uri, home=_HOME, command=self._phone.command, timeout_s=self._timeout_s
        )

    @property
    def machine(self) -> str:
        """Return the phone's system and architecture, as `uname -sm` prints them.

        Raises:
            RuntimeFailedError: The phone does not answer.
        """
        assert self._phone is not None, "the device has not been entered"
        return self._phone.shell("uname -s -m").strip()

    def explain_exit(self, code: int, output: str, *, started: bool) -> MobileDeployError | None:
        """Return an error for the exit codes of adb and of the phone's shell."""
        if not started and code in _REFUSED:
            return explain_start(self.uri, code, output)
        if started and code > 1:
            return None
        return RuntimeFailedError(
            f"The connection to {self.uri} broke.{last_output(output)}",
            remedy="Check the cable, and whether `adb devices` still lists the phone.",
        )
