"""Results that do not depend on how many cores a machine has.

In float the order of a sum decides its last bits, and the number of threads decides the order.
Where a decision hangs on such bits (a range, the rounding of a weight), two machines would come to
two networks from one command. On one thread they come to one.
"""

from __future__ import annotations

import functools
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")


def on_one_thread(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function so that torch computes on one thread while it runs."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return function(*args, **kwargs)
        finally:
            torch.set_num_threads(before)

    return wrapped


def parts(images: NDArray[np.float32], at_once: int = 4) -> list[slice]:
    """Return slices of a few images each, as many on every machine.

    Four of 224x224 stay inside the caches (three times faster than sixteen); of smaller ones as
    many more as have the same pixels, so that Python's own time does not count.

    Args:
        images: To be cut, (N, C, H, W).
        at_once: How many, if they were of 224x224.
    """
    each = at_once * max(1, 224**2 // images.shape[-1] ** 2)
    return [slice(first, first + each) for first in range(0, len(images), each)]


def channels_last(images: NDArray[np.float32]) -> torch.Tensor:
    """Return images (N, C, H, W) with their channels side by side in memory."""
    return torch.from_numpy(images).to(memory_format=torch.channels_last)


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
