"""Time several networks against one another, so that the machine's moods hit all of them alike."""

from __future__ import annotations

import contextlib
import gc
import random
import resource
import sys
import time
from typing import TYPE_CHECKING, Any

from mobiledeploy.devices.agent.machine import lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Tell = Callable[[dict[str, Any]], None]

_PROGRESS_EVERY_S = 0.2
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
    with garbage_collector_off():
        for _ in range(warmup):
            _round(runs, order, clock_ns)
            after_round(0)
        began = clock_ns()
        done = 0
        while not _finished(done, rounds, duration_s, clock_ns() - began):
            for index, elapsed_ns in _round(runs, order, clock_ns):
                times_ms[index].append(elapsed_ns / 1e6)
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


@contextlib.contextmanager
def garbage_collector_off() -> Iterator[None]:
    """Collect, then leave Python's garbage collector off within the block."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class ProgressReport:
    """Tells of the progress now and then, between rounds, where it disturbs nothing."""

    def __init__(
        self,
        tell: Tell,
        rounds: int,
        duration_s: float | None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tell = tell
        self._rounds = rounds
        self._duration_s = duration_s
        self._clock_s = clock_s
        self._began = self._told = clock_s()

    def __call__(self, rounds_done: int) -> None:
        """Hear that a round is over."""
        now = self._clock_s()
        if now - self._told < _PROGRESS_EVERY_S:
            return
        self._told = now
        by_rounds = rounds_done / self._rounds
        share = (now - self._began) / self._duration_s if self._duration_s else by_rounds
        self._tell({"progress": min(1.0, share)})


class PeakMemory:
    """Peak resident memory from construction on, less what was resident then.

    Resident memory counts the pages of a mapped file that were touched: an artifact's weights
    count whether a runtime reads or maps them.

    Linux resets the process's peak at construction. Elsewhere the peak is the process's so far, so
    that something that was larger before hides what comes after: the figure is then too small,
    never too large. Measure in a fresh process.
    """

    def __init__(self, proc: str = "/proc/self") -> None:
        self._status = f"{proc}/status"
        # Some containers forbid it; then the peak is that of the process, as elsewhere.
        with contextlib.suppress(OSError), open(f"{proc}/clear_refs", "w") as handle:
            handle.write("5")
        self._before = self._status_bytes("VmRSS") or _process_peak_bytes()

    def added_bytes(self) -> int:
        """Return the peak so far, less what was resident at the beginning."""
        return max(0, (self._status_bytes("VmHWM") or _process_peak_bytes()) - self._before)

    def _status_bytes(self, field: str) -> int | None:
        """Return a field of /proc/self/status, which Linux alone has."""
        values = [line.split()[1] for line in lines(self._status) if line.startswith(f"{field}:")]
        return int(values[0]) * 1024 if values else None


def _process_peak_bytes() -> int:
    """Return the largest resident size that this process ever had; macOS counts in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
