"""Devices on which a command starts the agent: a Python that runs it, or the native runner."""

from __future__ import annotations

import platform
import shlex
import sys
from typing import TYPE_CHECKING, Literal, Self

from mobiledeploy.devices.agent import BOOTSTRAP
from mobiledeploy.devices.agent_session import run_session
from mobiledeploy.devices.command_output import last_output
from mobiledeploy.devices.host import Host, host_from_report
from mobiledeploy.devices.native.bundle import cached_bundle
from mobiledeploy.devices.qemu import plugin as qemu_plugin
from mobiledeploy.devices.qemu import processor
from mobiledeploy.devices.replies import check_message, malformed
from mobiledeploy.errors import MobileDeployError, RuntimeFailedError, UsageError
from mobiledeploy.utils.progress import warn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mobiledeploy.devices.request import Message, Request

RunnerKind = Literal["", "python", "native"]

TIMEOUT_S = 600.0


class PythonDevice:
    """A device that runs the agent through a command.

    Args:
        uri: The device as the user named it.
        argv: Starts a Python on the device that runs `agent.BOOTSTRAP`, or the native runner.
        timeout_s: How long a task may take, and how long a session may send nothing.
        environment: Variables for the command, added to this process's.
        is_native: Whether it is the native runner.
    """

    def __init__(
        self,
        uri: str,
        argv: list[str],
        *,
        timeout_s: float = TIMEOUT_S,
        environment: Mapping[str, str] | None = None,
        is_native: bool = False,
    ) -> None:
        self.uri = uri
        self._argv = argv
        self._is_native = is_native
        self._timeout_s = timeout_s
        self._environment = environment
        self._host: Host | None = None

    @property
    def is_local(self) -> bool:
        """Return whether this device is the machine and the Python that mobiledeploy runs in."""
        return False

    @property
    def traces_operators(self) -> bool:
        """Return whether it times the operators of a `.pte` in whole inferences."""
        return self._is_native

    @property
    def host(self) -> Host:
        """Return the machine's description, from its first session.

        Raises:
            RuntimeFailedError: The device cannot be reached, or has no Python.
        """
        if self._host is None:
            for _ in self._messages(None):
                pass
        if self._host is None:
            raise malformed(self.uri, "it did not begin with `hello`")
        return self._host

    def conditions(self) -> Mapping[str, object]:
        """Return what the device's speed depends on, now (`agent.machine.conditions`).

        Raises:
            RuntimeFailedError: The device cannot be reached.
        """
        [hello] = self._messages(None)
        return dict(hello["hello"]["conditions"])

    def run_session(self, request: Request) -> Iterator[Message]:
        """Run one session; yield "loading" and "progress" messages, and "result" last.

        Raises:
            MobileDeployError: The session failed. Its files on the device are removed.
        """
        for message in self._messages(request):
            if "hello" not in message:
                yield message

    def runner_sha256(self) -> str:
        """Return the sha256 that stands for the native runner's files on the device; "" without.

        Raises:
            RuntimeFailedError: The device cannot be reached, or the runner is not there.
        """
        return ""

    def explain_exit(self, code: int, output: str, *, started: bool) -> MobileDeployError | None:  # noqa: ARG002 - subclasses use them
        """Return an error for the command's exit code and output, or None if they are unknown.

        Args:
            code: The exit code.
            output: What the command printed, other than messages.
            started: Whether the agent had started.
        """
        return None

    def _messages(self, request: Request | None) -> Iterator[Message]:
        for message in run_session(
            self._argv,
            request,
            uri=self.uri,
            timeout_s=self._timeout_s,
            explain_exit=self.explain_exit,
            environment=self._environment,
            is_native=self._is_native,
        ):
            check_message(self.uri, message, request)
            if "hello" in message and self._host is None:
                self._host = host_from_report(self.uri, message["hello"])
            yield message

    def __enter__(self) -> Self:
        """Return itself; devices that need a connection open it here."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection, if there is one."""


class LocalDevice(PythonDevice):
    """This machine, with the Python and the runtimes that mobiledeploy runs in."""

    def __init__(self, *, timeout_s: float = TIMEOUT_S) -> None:
        super().__init__("local", [sys.executable, "-c", BOOTSTRAP], timeout_s=timeout_s)

    @property
    def is_local(self) -> bool:
        """Return True."""
        return True


class CommandDevice(PythonDevice):
    """`exec:COMMAND`, where COMMAND starts a Python or the native runner.

    The command's standard input must reach the program (`docker run -i`). No shell is involved:
    COMMAND is split into words as a shell would, and nothing in it is expanded.

    Args:
        uri: `exec:COMMAND`. COMMAND passes arguments on to the Python or runs the program that
            follows. A QEMU that is given no program runs the native runner.
        runner: "python" or "native"; "" for what fits the command.
        timeout_s: How long a task may take, and how long a session may send nothing.
        counts_instructions: Whether QEMU, if the command runs it, loads the counting plugin.

    Raises:
        UsageError: See `split_command`.
        RuntimeFailedError: The plugin cannot be compiled, or the native runner was not set up.
    """

    def __init__(
        self,
        uri: str,
        *,
        runner: RunnerKind = "",
        timeout_s: float = TIMEOUT_S,
        counts_instructions: bool = False,
    ) -> None:
        argv, self._note = split_command(uri), ""
        if processor.is_qemu(argv):
            argv, self._note = processor.with_safe_processor(argv)
        is_native = runner == "native" or (not runner and runs_native(argv))
        argv = native_command(argv) if is_native else [*argv, "-c", BOOTSTRAP]
        super().__init__(
            uri,
            argv,
            timeout_s=timeout_s,
            environment=qemu_plugin.environment() if counts_instructions else None,
            is_native=is_native,
        )

    def runner_sha256(self) -> str:
        """Return the sha256 that stands for the files of the bundle on this machine."""
        return cached_bundle(command_architecture(split_command(self.uri))).sums_sha256

    def __enter__(self) -> Self:
        """Report whether the emulated processor was changed."""
        if self._note:
            warn(self._note)
        return self

    def explain_exit(self, code: int, output: str, *, started: bool) -> MobileDeployError | None:
        """Return an error for a command that ended before the agent started."""
        if started:
            return None
        if self._is_native:
            return RuntimeFailedError(
                f"{self.uri} ended with code {code} before the native runner started."
                f"{last_output(output)}",
                remedy="The command must run the program that follows it, of the processor that "
                "`mobiledeploy device setup` was run for, and leave its standard input connected.",
            )
        return RuntimeFailedError(
            f"{self.uri} ended with code {code} before Python started.{last_output(output)}",
            remedy="The command must start Python 3.9 or later, pass further arguments on to it, "
            "and leave its standard input and output connected.",
        )


def runs_native(argv: list[str]) -> bool:
    """Return whether a command is a QEMU that is given no program to run."""
    return processor.is_qemu(argv) and not processor.names_program(argv)


def command_architecture(argv: list[str]) -> str:
    """Return the architecture of the programs that a command runs, in the kernel's words."""
    return "aarch64" if processor.is_qemu(argv) else platform.machine()


def native_command(argv: list[str]) -> list[str]:
    """Return a command that runs the native runner, given the command that runs a program.

    Raises:
        RuntimeFailedError: The native runner was not set up for this architecture.
    """
    bundle = cached_bundle(command_architecture(argv))
    root = ["-L", str(processor.sysroot(argv))] if runs_native(argv) and "-L" not in argv else []
    return [*argv, *root, *bundle.command()]


def split_command(uri: str) -> list[str]:
    """Return the argv of `exec:COMMAND`.

    Raises:
        UsageError: The command is empty, or a quotation mark in it is not closed.
    """
    try:
        argv = shlex.split(uri.removeprefix("exec:"))
    except ValueError as error:
        raise UsageError(
            f"{uri!r} cannot be split into a command and its arguments: {error}.",
            remedy="Close the quotation marks, or escape them.",
        ) from error
    if not argv:
        raise UsageError(
            "exec: has no command.",
            remedy="For example: exec:'qemu-aarch64 -cpu cortex-a76'",
        )
    return argv
