"""Read how many instructions this process has executed, where QEMU counts them.

The plugin (`devices/qemu_plugin.c`) answers a system call that no kernel has.
"""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, Any

from mobiledeploy.devices.agent.errors import RefusalError
from mobiledeploy.devices.agent.timing import garbage_collector_off

if TYPE_CHECKING:
    from collections.abc import Callable

_READ_COUNT = 0x6D6F62  # qemu_plugin.c has the same number
_BYTES = 8


class InstructionCounter:
    """Calls return the number of instructions executed so far."""

    def __init__(self) -> None:
        self._source, self._sink = os.pipe()
        os.set_blocking(self._source, False)
        self._syscall: Any = ctypes.CDLL(None).syscall
        self._syscall.argtypes = [ctypes.c_long, ctypes.c_long]

    def __call__(self) -> int:
        """Return the count so far.

        Raises:
            RefusalError: nobody counts.
        """
        self._syscall(_READ_COUNT, self._sink)
        try:
            return int.from_bytes(os.read(self._source, _BYTES), "little")
        except BlockingIOError:
            raise RefusalError(
                "RuntimeFailedError",
                "Nothing counts instructions on this device: no QEMU that runs it has loaded our "
                "plugin.",
                "Start it with a QEMU (user mode) that can load plugins: qemu-aarch64 of Debian's "
                "package qemu-user, not the static one of qemu-user-static.",
            ) from None


def instructions_of(run: Callable[[], object], *, rounds: int, warmup: int) -> list[int]:
    """Return how many instructions each of `rounds` calls takes, after `warmup` that do not count.

    What the counting itself takes, found by counting nothing, is subtracted.
    """
    count = InstructionCounter()
    for _ in range(warmup):
        run()
    with garbage_collector_off():
        own = _one(count, lambda: None)
        return [_one(count, run) - own for _ in range(rounds)]


def _one(count: InstructionCounter, run: Callable[[], object]) -> int:
    before = count()
    run()
    return count() - before
