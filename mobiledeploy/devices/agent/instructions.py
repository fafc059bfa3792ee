"""Count the instructions that this process executes, under a QEMU that has loaded the plugin.

The plugin (`devices/qemu/plugin.c`) answers a system call that no kernel has.
"""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, Any

from mobiledeploy.devices.agent.errors import AgentError
from mobiledeploy.devices.agent.timing import garbage_collector_off

if TYPE_CHECKING:
    from collections.abc import Callable

_READ_COUNT = 0x6D6F62  # plugin.c has the same number
_BYTES = 8


class InstructionCounter:
    """Returns, when called, the number of instructions that the process has executed."""

    def __init__(self) -> None:
        self._source, self._sink = os.pipe()
        os.set_blocking(self._source, False)
        self._syscall: Any = ctypes.CDLL(None).syscall
        self._syscall.argtypes = [ctypes.c_long, ctypes.c_long]

    def __call__(self) -> int:
        """Return the count so far.

        Raises:
            AgentError: No plugin answers.
        """
        self._syscall(_READ_COUNT, self._sink)
        try:
            return int.from_bytes(os.read(self._source, _BYTES), "little")
        except BlockingIOError:
            raise AgentError(
                "RuntimeFailedError",
                "Instructions cannot be counted on this device: it does not run under a QEMU that "
                "has loaded the counting plugin.",
                "Use a QEMU (user mode) that can load plugins: qemu-aarch64 from Debian's package "
                "qemu-user, not the static one from qemu-user-static.",
            ) from None


def instructions_of(run: Callable[[], object], *, rounds: int, warmup: int) -> list[int]:
    """Return the instructions of each of `rounds` calls, after `warmup` calls.

    The instructions of the counting itself, measured with an empty call, are subtracted.
    """
    counter = InstructionCounter()
    for _ in range(warmup):
        run()
    with garbage_collector_off():
        overhead = _count_once(counter, lambda: None)
        return [_count_once(counter, run) - overhead for _ in range(rounds)]


def _count_once(counter: InstructionCounter, run: Callable[[], object]) -> int:
    before = counter()
    run()
    return counter() - before
