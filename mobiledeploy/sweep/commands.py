"""Run mobiledeploy commands in processes of their own, and stop them together.

A process is kept for the next command, because loading PyTorch and the exporters takes seconds. A
crash costs one command. A command that was killed from outside runs again, once.
"""

from __future__ import annotations

import errno
import json
import os
import signal
from threading import Lock
from typing import TYPE_CHECKING, Any, Self

from mobiledeploy.errors import RuntimeFailedError
from mobiledeploy.sweep.child_process import ChildProcess, Ended

if TYPE_CHECKING:
    from collections.abc import Sequence

_ATTEMPTS = 2
_KILLED = (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM)
_INTERRUPTED = 128 + signal.SIGINT
_NO_ROOM = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT), "There is no room")
_MOST_BYTES = 2 << 30
"""A process that holds more than this is not kept."""


class InterruptedCommandError(RuntimeFailedError):
    """A command was stopped from outside, or found no room on the disk: it may succeed later."""


class Commands:
    """Commands that run at the same time, from several threads. Use it as a context manager."""

    def __init__(self) -> None:
        self._idle: list[ChildProcess] = []
        self._running: set[ChildProcess] = set()
        self._stopped = False
        self._lock = Lock()

    def run(self, arguments: Sequence[str], *, threads: int, shared: bool = True) -> dict[str, Any]:
        """Run a mobiledeploy command and return its JSON document.

        Args:
            arguments: Of the command line, `--json` among them.
            threads: Number of threads that the command computes with.
            shared: Whether the process may run other commands before it and after it.

        Raises:
            InterruptedCommandError: it was killed, stopped, or found no room on the disk.
            RuntimeFailedError: it failed; the message is its error.
        """
        for _ in range(_ATTEMPTS):
            ended = self._once(arguments, threads, shared=shared)
            if ended.code not in _KILLED or self._stopped:
                break
        code = ended.code
        if code == 0:
            document: dict[str, Any] = json.loads(ended.stdout)
            return document
        if self._stopped or code == _INTERRUPTED:
            raise InterruptedCommandError("The sweep was stopped.")
        if code in _KILLED:
            raise InterruptedCommandError(f"`mobiledeploy {arguments[0]}` was killed, twice.")
        message = (
            _error_of(ended.stderr) or f"`mobiledeploy {arguments[0]}` ended with exit code {code}."
        )
        if any(text in ended.stderr for text in _NO_ROOM):
            raise InterruptedCommandError(message)
        raise RuntimeFailedError(message)

    def stop(self) -> None:
        """Stop all commands, and start no more."""
        with self._lock:
            self._stopped = True
            for process in (*self._running, *self._idle):
                process.terminate()

    def close(self) -> None:
        """End the processes that run no command."""
        with self._lock:
            idle, self._idle = self._idle, []
        for process in idle:
            process.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End all processes; commands that still run are stopped."""
        self.stop()
        self.close()

    def _once(self, arguments: Sequence[str], threads: int, *, shared: bool) -> Ended:
        """Run a command."""
        with self._lock:
            if self._stopped:
                return Ended(code=_INTERRUPTED)
            process = (self._take(threads) if shared else None) or ChildProcess(threads)
            self._running.add(process)
        is_kept = False
        try:
            ended = process.run(arguments)
            is_kept = shared and ended.code == 0 and ended.memory_bytes <= _MOST_BYTES
            return ended
        finally:
            with self._lock:
                self._running.discard(process)
                if is_kept:
                    self._idle.append(process)
            if not is_kept:
                process.close()

    def _take(self, threads: int) -> ChildProcess | None:
        """Return an idle process that computes with this number of threads; None without one."""
        for process in self._idle:
            if process.threads == threads and process.is_alive:
                self._idle.remove(process)
                return process
        return None


def _error_of(stderr: str) -> str:
    """Return the error that a command printed last, without line breaks."""
    _, found, text = stderr.rpartition("Error: ")
    message = text.partition("\nTry: ")[0] if found else stderr[-300:]
    return " ".join(message.split())
