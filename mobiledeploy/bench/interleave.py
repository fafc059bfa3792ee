"""Time several networks against one another, so that the machine's moods hit all of them alike."""

from __future__ import annotations

import gc
import random
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_NS_PER_MS = 1e6
_MIN_ROUNDS = 2


def interleaved(
    runs: Sequence[Callable[[], object]],
    *,
    rounds: int,
    warmup: int,
    seed: int = 0,
    duration_s: float | None = None,
    after_round: Callable[[int], None] = lambda _: None,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
) -> list[list[float]]:
    """Time each of `runs` once per round.

    - The order is shuffled in every round: each network has every place and every neighbour as
      often as the others, and no periodic disturbance can keep in step with it. (A rotation
      balances the places only: the neighbour before would always be the same.)
    - Each turn runs the network twice and times the second: its weights are in the caches again
      and its predecessor's threads have gone to sleep, as in an app that runs one network.
    - Python's garbage collector is off.

    Args:
        runs: One inference each, with its input prepared.
        rounds: How many count.
        warmup: How many come first and do not count.
        seed: Of the order.
        duration_s: Go on for so long in place of `rounds` (but for two rounds at least).
        after_round: Called between rounds with the number of those that counted.
        clock_ns: Nanoseconds from any origin.

    Returns:
        Milliseconds, [network][round].
    """
    order = random.Random(seed)  # noqa: S311 - an order, not a secret
    times_ms: list[list[float]] = [[] for _ in runs]
    with _garbage_collector_off():
        for _ in range(warmup):
            _round(runs, order, clock_ns)
            after_round(0)
        began = clock_ns()
        done = 0
        while not _finished(done, rounds, duration_s, clock_ns() - began):
            for index, elapsed_ns in _round(runs, order, clock_ns):
                times_ms[index].append(elapsed_ns / _NS_PER_MS)
            done += 1
            after_round(done)
    return times_ms


def _round(
    runs: Sequence[Callable[[], object]], order: random.Random, clock_ns: Callable[[], int]
) -> list[tuple[int, int]]:
    """Run and time each network once; return (index, nanoseconds) in the order taken."""
    times = []
    for index in order.sample(range(len(runs)), len(runs)):
        run = runs[index]
        run()
        began = clock_ns()
        run()
        times.append((index, clock_ns() - began))
    return times


def _finished(done: int, rounds: int, duration_s: float | None, elapsed_ns: int) -> bool:
    if duration_s is None:
        return done >= rounds
    return done >= _MIN_ROUNDS and elapsed_ns >= duration_s * 1e9


@contextmanager
def _garbage_collector_off() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
