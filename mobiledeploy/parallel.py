"""Independent pieces of work on all cores, with results that do not depend on how many there are.

Each piece computes on one thread (torch releases Python's lock while it computes), and results come
back in the order of the pieces: whoever sums them sums in one order on every machine (compare
`single_thread`).
"""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")
R = TypeVar("R")


def in_order(function: Callable[[T], R], pieces: Iterable[T]) -> Iterator[R]:
    """Yield function(piece) for every piece, in order, while others are being computed."""
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()

    def alone(piece: T) -> R:
        with torch.no_grad():  # the mode belongs to the thread
            return function(piece)

    with ThreadPoolExecutor(workers) as pool:
        running: deque[Future[R]] = deque()
        try:
            for piece in pieces:
                running.append(pool.submit(alone, piece))
                if len(running) > 2 * (workers or 1):
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()
