"""A place where a command starts a Python: this machine, another one, or an emulated one."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Self

from mobiledeploy.devices.agent import BOOTSTRAP
from mobiledeploy.devices.agent_session import converse
from mobiledeploy.devices.host import Host, host_from
from mobiledeploy.devices.qemu import plugin as qemu_plugin
from mobiledeploy.errors import MobileDeployError, RuntimeFailedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mobiledeploy.devices.request import Message, Request
    from mobiledeploy.errors import MobileDeployError

TIMEOUT_S = 600.0


class PythonDevice:
    """Runs the agent by a command.

    Args:
        uri: What the user called it.
        argv: Starts a Python over there that runs `agent.BOOTSTRAP`.
        timeout_s: How long one session may take, and how long it may say nothing.
        environment: Variables for the command, added to ours.
    """

    def __init__(
        self,
        uri: str,
        argv: list[str],
        *,
        timeout_s: float = TIMEOUT_S,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.uri = uri
        self._argv = argv
        self._timeout_s = timeout_s
        self._environment = environment
        self._host: Host | None = None

    @property
    def is_local(self) -> bool:
        """Return whether this is the machine that we run on, as it is."""
        return False

    @property
    def host(self) -> Host:
        """Return what the machine said of itself, in the first session with it.

        Raises:
            RuntimeFailedError: it cannot be reached, or has no Python.
        """
        if self._host is None:
            for _ in self._talk(None):
                pass
        assert self._host is not None, "a session begins with hello"
        return self._host

    def converse(self, request: Request) -> Iterator[Message]:
        """Run one session; yield "loading", "progress", and the "result" as the last.

        Raises:
            MobileDeployError: it failed; nothing of it is left over there.
        """
        for message in self._talk(request):
            if "hello" not in message:
                yield message

    def explain(self, code: int, said: str, *, greeted: bool) -> MobileDeployError | None:  # noqa: ARG002 - for others
        """Return an error for what the command's exit code and output mean, if they tell."""
        return None

    def _talk(self, request: Request | None) -> Iterator[Message]:
        for message in converse(
            self._argv,
            request,
            place=self.uri,
            timeout_s=self._timeout_s,
            explain=self.explain,
            environment=self._environment,
        ):
            if "hello" in message and self._host is None:
                self._host = host_from(self.uri, message["hello"])
            yield message

    def __enter__(self) -> Self:
        """Return itself; devices that need a connection open it here."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close what was opened."""


class LocalDevice(PythonDevice):
    """The machine that we run on, with the Python and the runtimes that we run in."""

    def __init__(self, *, timeout_s: float = TIMEOUT_S) -> None:
        super().__init__("local", [sys.executable, "-c", BOOTSTRAP], timeout_s=timeout_s)

    @property
    def is_local(self) -> bool:
        """Return True."""
        return True


_LAST_WORDS = 5


class CommandDevice(PythonDevice):
    """`exec:COMMAND`: a command, its interpreter included, that takes Python's own arguments.

    Its standard input must reach the interpreter (`docker run -i`). No shell is involved: COMMAND
    is split as a shell would split it, and nothing in it is expanded.

    Args:
        uri: `exec:COMMAND`.
        timeout_s: How long one session may take, and how long it may say nothing.
        counts_instructions: Whether a QEMU in it is to load the plugin that counts.
    """

    def __init__(
        self, uri: str, *, timeout_s: float = TIMEOUT_S, counts_instructions: bool = False
    ) -> None:
        super().__init__(
            uri,
            [*split_command(uri), "-c", BOOTSTRAP],
            timeout_s=timeout_s,
            environment=qemu_plugin.environment() if counts_instructions else None,
        )

    def explain(self, code: int, said: str, *, greeted: bool) -> MobileDeployError | None:
        """Return an error for a command that ended before the agent began."""
        if greeted:
            return None
        words = "\n".join(said.strip().splitlines()[-_LAST_WORDS:])
        return RuntimeFailedError(
            f"{self.uri} ended with code {code} before Python said anything."
            + (f" It said:\n{words}" if words else ""),
            remedy="The command must start a Python of version 3.9 or later, pass the arguments "
            "that follow on to it, and leave its standard input and output connected.",
        )


def split_command(uri: str) -> list[str]:
    """Return the argv of `exec:COMMAND`.

    Raises:
        UsageError: it is empty, or a quotation in it has no end.
    """
    try:
        argv = shlex.split(uri.removeprefix("exec:"))
    except ValueError as error:
        raise UsageError(
            f"{uri!r} cannot be split into a command and its arguments: {error}."
        ) from error
    if not argv:
        raise UsageError(
            "exec: names no command.",
            remedy="For example: exec:'qemu-aarch64 -L ROOT ROOT/usr/bin/python3'",
        )
    return argv
