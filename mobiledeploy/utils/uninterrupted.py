"""Hold signals back while files that belong together are created, moved or removed."""

from __future__ import annotations

import signal
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and SIGHUP take effect after the block instead of within it.

    Keep the block short. Python runs signal handlers in the main thread; in other threads this
    changes nothing. An ignored signal stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    with ExitStack() as stack:  # undoes each step even if another one raises
        stack.callback(_raise_first, held)
        for number in (getattr(signal, name) for name in _NAMES if hasattr(signal, name)):
            handler = signal.getsignal(number)
            if handler not in {signal.SIG_IGN, None}:  # None: it was not set from Python
                stack.callback(signal.signal, number, handler)
                signal.signal(number, lambda number, _frame: held.append(number))
        yield


def _raise_first(held: list[int]) -> None:
    if held:
        signal.raise_signal(held[0])
