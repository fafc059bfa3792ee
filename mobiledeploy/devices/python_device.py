"""A place where a command starts a Python: this machine, another one, or an emulated one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from mobiledeploy.devices.host import Host, host_from
from mobiledeploy.devices.session import converse

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
