"""A process that runs mobiledeploy commands for its parent (`child` is the other end)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING, cast

from mobiledeploy.utils.files import KEEP_NETWORKS_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

_LAST_LINES = 20  # of what a process printed before it crashed
_END_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended.

    Attributes:
        code: Its exit code; negative for the signal that killed its process.
        stdout: What it printed.
        stderr: Its messages; if its process died, the last lines of that.
        memory_bytes: Memory that its process still holds.
    """

    code: int
    stdout: str = ""
    stderr: str = ""
    memory_bytes: int = 0


class ChildProcess:
    """A process that runs one command at a time.

    Args:
        threads: Number of threads that its commands compute with.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "mobiledeploy.sweep.child", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
            env=os.environ | {"OMP_NUM_THREADS": str(threads), KEEP_NETWORKS_VARIABLE: "0"},
            start_new_session=True,  # Ctrl-C reaches the sweep only, which stops its commands
        )
        self._requests = cast("TextIO", self._process.stdin)
        self._answers = cast("TextIO", self._process.stdout)
        self._printed: deque[str] = deque(maxlen=_LAST_LINES)
        self._reader = Thread(target=self._read_stderr, daemon=True)
        self._reader.start()

    @property
    def is_alive(self) -> bool:
        """Return whether the process still runs."""
        return self._process.poll() is None

    def run(self, arguments: Sequence[str]) -> Ended:
        """Run a command. If it fails, the process ends with it."""
        try:
            answer = self._ask(arguments)
        except BaseException:  # Ctrl-C, or a cancelled task of a cluster
            self.terminate()
            self._process.wait()
            raise
        if answer.endswith("\n"):
            return Ended(**json.loads(answer))
        code = self._process.wait()
        self._reader.join(_END_S)
        return Ended(code=code, stderr="".join(self._printed))

    def terminate(self) -> None:
        """Stop the process, as Ctrl-C would stop its command."""
        self._process.terminate()

    def close(self) -> None:
        """Let the process end after its command, and wait for that."""
        with suppress(BrokenPipeError):
            self._requests.close()
        self._process.wait()
        self._reader.join(_END_S)
        self._answers.close()

    def _ask(self, arguments: Sequence[str]) -> str:
        """Send a command; return the answer, which is cut off if the process dies."""
        try:
            self._requests.write(json.dumps(list(arguments)) + "\n")
            self._requests.flush()
        except BrokenPipeError:
            return ""
        return self._answers.readline()

    def _read_stderr(self) -> None:
        """Read what libraries print, so that the pipe does not fill, and keep the end of it."""
        with cast("TextIO", self._process.stderr) as stderr:
            for line in stderr:
                self._printed.append(line)
