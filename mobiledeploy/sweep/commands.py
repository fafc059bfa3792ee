"""Run mobiledeploy commands in processes of their own, and stop them together.

A crash costs one command, and its memory is returned. A command that was killed from outside runs
again, once.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from threading import Lock
from typing import TYPE_CHECKING, Any

from mobiledeploy.errors import RuntimeFailedError
from mobiledeploy.utils.files import KEEP_NETWORKS_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

_ATTEMPTS = 2
_KILLED = (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM)
_INTERRUPTED = 128 + signal.SIGINT
_NO_ROOM = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT), "There is no room")


class InterruptedCommandError(RuntimeFailedError):
    """A command was stopped from outside, or found no room on the disk: it may succeed later."""


class Commands:
    """Commands that run at the same time, from several threads."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = False
        self._lock = Lock()

    def run(self, arguments: Sequence[str], *, threads: int) -> dict[str, Any]:
        """Run a mobiledeploy command and return its JSON document.

        Args:
            arguments: Of the command line, `--json` among them.
            threads: Number of threads that the command computes with.

        Raises:
            InterruptedCommandError: it was killed, stopped, or found no room on the disk.
            RuntimeFailedError: it failed; the message is its error.
        """
        for _ in range(_ATTEMPTS):
            code, stdout, stderr = self._once(arguments, threads)
            if code not in _KILLED or self._stopped:
                break
        if code == 0:
            document: dict[str, Any] = json.loads(stdout)
            return document
        if self._stopped or code == _INTERRUPTED:
            raise InterruptedCommandError("The sweep was stopped.")
        if code in _KILLED:
            raise InterruptedCommandError(f"`mobiledeploy {arguments[0]}` was killed, twice.")
        message = _error_of(stderr) or f"`mobiledeploy {arguments[0]}` ended with exit code {code}."
        if any(text in stderr for text in _NO_ROOM):
            raise InterruptedCommandError(message)
        raise RuntimeFailedError(message)

    def stop(self) -> None:
        """Stop all commands, and start no more."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.terminate()

    def _once(self, arguments: Sequence[str], threads: int) -> tuple[int, str, str]:
        """Run a command; return its exit code, stdout and stderr."""
        with self._lock:
            if self._stopped:
                return _INTERRUPTED, "", ""
            process = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "-m", "mobiledeploy.sweep.child", str(os.getpid()), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=os.environ | {"OMP_NUM_THREADS": str(threads), KEEP_NETWORKS_VARIABLE: "0"},
                start_new_session=True,  # Ctrl-C reaches the sweep only, which stops its commands
            )
            self._running.add(process)
        try:
            stdout, stderr = process.communicate()
        except BaseException:  # Ctrl-C, or a cancelled task of a cluster
            process.terminate()
            process.wait()
            raise
        finally:
            with self._lock:
                self._running.discard(process)
        return process.returncode, stdout, stderr


def _error_of(stderr: str) -> str:
    """Return the error that a command printed last, without line breaks."""
    _, found, text = stderr.rpartition("Error: ")
    message = text.partition("\nTry: ")[0] if found else stderr[-300:]
    return " ".join(message.split())
