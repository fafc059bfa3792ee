"""Run a function in a process of its own, with limits of time and memory, and say how it ended."""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import select
import signal
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

from mobiledeploy.devices.agent.timing import PeakMemory
from mobiledeploy.errors import MobileDeployError
from mobiledeploy.utils.memory import out_of_memory

if TYPE_CHECKING:
    from collections.abc import Callable

Ending = Literal["accepted", "refused", "contained", "bug", "crash", "hang", "memory"]
RIGHT = ("accepted", "refused", "contained")

LIMIT_S = 30.0
LIMIT_BYTES = 1 << 30  # of growth; the inputs have some kB
HARD_LIMIT_BYTES = 4 << 30  # keeps the machine alive; the process gets a MemoryError


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one input ended.

    Attributes:
        ending: Those of `RIGHT` are right, the others are findings.
        detail: The error's message or traceback, or the signal.
        grown_bytes: Peak resident memory, less what the process began with.
        took_s: Seconds.
    """

    ending: Ending
    detail: str
    grown_bytes: int
    took_s: float

    @property
    def is_finding(self) -> bool:
        """Return whether this must not happen."""
        return self.ending not in RIGHT


class ContainedError(MobileDeployError):
    """A native library crashed or hung in the process that commands give it."""


def run_isolated(
    function: Callable[[], object], *, limit_s: float = LIMIT_S, limit_bytes: int = LIMIT_BYTES
) -> Outcome:
    """Run a function in a fork of this process.

    Args:
        function: Its result does not matter; a `MobileDeployError` refuses the input.
        limit_s: Seconds until it counts as hanging.
        limit_bytes: Growth of resident memory that counts as a finding.
    """
    began = time.monotonic()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _run_and_exit(function, writer)
    os.close(writer)
    answered = select.select([reader], [], [], limit_s)[0]
    if not answered:
        os.killpg(pid, signal.SIGKILL)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(pid, 0)
    took_s = time.monotonic() - began
    ending, detail, grown = _ending(answer, status, hung=not answered)
    if ending in RIGHT and grown > limit_bytes:
        ending, detail = "memory", f"{ending} after growing by {grown >> 20} MiB: {detail}"
    return Outcome(ending, detail, grown, took_s)


def _ending(answer: bytes, status: int, *, hung: bool) -> tuple[Ending, str, int]:
    """Return ending, detail and growth; the growth of a process that died is not known."""
    if hung:
        return "hang", "no answer within the time limit", 0
    if os.WIFSIGNALED(status):
        return "crash", signal.Signals(os.WTERMSIG(status)).name, 0
    if not answer:
        return "crash", f"ended with code {os.WEXITSTATUS(status)}", 0
    ending, detail, grown = json.loads(answer)
    return ending, detail, grown


def _run_and_exit(function: Callable[[], object], writer: int) -> NoReturn:
    """Run the function in this process, write how it ended, and exit."""
    os.setpgid(0, 0)
    _silence()
    faulthandler.disable()  # it would print a crash to the stderr of before
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_pages(0) + HARD_LIMIT_BYTES, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    memory, before = PeakMemory(), _pages(1)
    try:
        function()
        answer = "accepted", ""
    except ContainedError as error:
        answer = "contained", error.message
    except MobileDeployError as error:
        answer = "refused", f"{type(error).__name__} {error.exit_code}: {error.message}"
    except Exception as error:
        if no_memory := out_of_memory(error):
            answer = "memory", f"{no_memory.message} {traceback.format_exc()}"
        else:
            answer = "bug", traceback.format_exc()
    with os.fdopen(writer, "wb") as pipe:
        of_children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 - before
        pipe.write(json.dumps([*answer, max(memory.added_bytes(), of_children)]).encode())
    os._exit(0)


def _silence() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)


def _pages(field: int) -> int:
    """Return a field of /proc/self/statm in bytes: 0 is virtual, 1 is resident memory."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[field]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
