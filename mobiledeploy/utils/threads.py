"""Parallel computation whose results do not depend on the number of cores.

In float, the order of a sum decides its last bits, and torch's number of threads decides the order.
Where a choice depends on such bits (a range, the rounding of a weight), two machines would build
two networks from one command. So every piece of work runs on one torch thread, pieces run in
parallel, and their results come in order.
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
    """Decorate a function so that torch uses one thread while it runs."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return function(*args, **kwargs)
        finally:
            torch.set_num_threads(before)

    return wrapped


def batch_slices(images: NDArray[np.float32], size: int = 4) -> list[slice]:
    """Return slices that cut images into batches, the same ones on every machine.

    Four images of 224x224 stay inside the caches (three times faster than sixteen). Batches of
    smaller images hold as many pixels, so that Python's overhead stays small.

    Args:
        images: The images, (N, C, H, W).
        size: Images per batch if they were 224x224.
    """
    count = size * max(1, 224**2 // images.shape[-1] ** 2)
    return [slice(first, first + count) for first in range(0, len(images), count)]


def channels_last(images: NDArray[np.float32]) -> torch.Tensor:
    """Return images (N, C, H, W) as a tensor in channels-last memory format."""
    return torch.from_numpy(images).to(memory_format=torch.channels_last)


def parallel_map(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield function(item) for every item, in order, computing without gradients on all cores."""
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()

    def without_gradients(item: T) -> R:
        with torch.no_grad():  # the mode is per thread
            return function(item)

    with ThreadPoolExecutor(workers) as pool:
        running: deque[Future[R]] = deque()
        try:
            for item in items:
                running.append(pool.submit(without_gradients, item))
                if len(running) > 2 * (workers or 1):
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()
