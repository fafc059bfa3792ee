"""Wherever a command starts a Python: QEMU, a container, a scheduler."""

from __future__ import annotations

import shlex

from mobiledeploy.devices import qemu_plugin
from mobiledeploy.devices.agent import BOOTSTRAP
from mobiledeploy.devices.python_device import TIMEOUT_S, PythonDevice
from mobiledeploy.errors import MobileDeployError, RuntimeFailedError, UsageError

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
