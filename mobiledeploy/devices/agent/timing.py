"""Time several networks in one run, so that disturbances of the machine affect all of them."""

from __future__ import annotations

import contextlib
import gc
import random
import resource
import sys
import time
from typing import TYPE_CHECKING

from mobiledeploy.devices.agent.machine import lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mobiledeploy.devices.request import Message

    Send = Callable[[Message], None]

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

    - The order is shuffled in every round: every network gets every position and every
      predecessor equally often, and no periodic disturbance stays in step with it. (A rotation
      would balance the positions only: the predecessor would always be the same.)
    - Each turn runs the network twice and times the second run: its weights are in the caches
      again and the predecessor's threads are asleep, as in an app that runs one network.
    - Python's garbage collector is off.

    Args:
        runs: Each runs one inference of one network; the inputs are prepared.
        rounds: Rounds to time.
        warmup: Rounds before these.
        seed: Seed of the order.
        duration_s: Time for so long, in place of `rounds`, and at least two rounds.
        after_round: Called after each round with the number of rounds timed so far.
        clock_ns: Returns nanoseconds from any origin.

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
    """Run one turn of each network; return (index, nanoseconds) in the order of the turns."""
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
    """Collect garbage, then keep the garbage collector off inside the context."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class ProgressReport:
    """Sends the progress between rounds, at most five times a second."""

    def __init__(
        self,
        send: Send,
        rounds: int,
        duration_s: float | None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._send = send
        self._rounds = rounds
        self._duration_s = duration_s
        self._clock_s = clock_s
        self._began = self._last_sent = clock_s()

    def __call__(self, rounds_done: int) -> None:
        """Send the progress if it is due; called after each round."""
        now = self._clock_s()
        if now - self._last_sent < _PROGRESS_EVERY_S:
            return
        self._last_sent = now
        by_rounds = rounds_done / self._rounds
        share = (now - self._began) / self._duration_s if self._duration_s else by_rounds
        self._send({"progress": min(1.0, share)})


class PeakMemory:
    """Peak resident memory since construction, less the resident memory at construction.

    Resident memory includes the touched pages of mapped files: an artifact's weights count whether
    a runtime reads or maps them.

    On Linux construction resets the process's peak. Elsewhere the peak is that of the whole
    process, so an earlier, higher peak makes the figure too small, never too large: measure in a
    fresh process.

    Args:
        proc: The process's folder in /proc.
    """

    def __init__(self, proc: str = "/proc/self") -> None:
        self._status = f"{proc}/status"
        # Some containers forbid it; the peak is then that of the whole process.
        with contextlib.suppress(OSError), open(f"{proc}/clear_refs", "w") as handle:
            handle.write("5")
        self._before = self._status_bytes("VmRSS") or _process_peak_bytes()

    def added_bytes(self) -> int:
        """Return the peak so far, less the resident memory at construction."""
        return max(0, (self._status_bytes("VmHWM") or _process_peak_bytes()) - self._before)

    def _status_bytes(self, field: str) -> int | None:
        """Return a field of /proc/self/status; None where there is no such file."""
        values = [line.split()[1] for line in lines(self._status) if line.startswith(f"{field}:")]
        return int(values[0]) * 1024 if values else None


def _process_peak_bytes() -> int:
    """Return the peak resident size of this process; macOS reports bytes, Linux KiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
