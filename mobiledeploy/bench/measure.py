"""The protocol: what is measured, in which order, in which process.

In: artifacts. Out: one `Measurement` each, comparable because they were taken in one run.

A run consists of sessions, each a fresh process. A session loads all artifacts, the first of them
with its load time, first inference and peak memory measured, then times all of them against one
another, round by round (`interleave`). From session to session the artifacts move up by one, so
that each is the first equally often and no place in memory is always the same artifact's.
All raw times are kept; statistics are derived from them (`stats`).
"""

from __future__ import annotations

import math
import statistics
import time
from typing import TYPE_CHECKING, Any

from mobiledeploy.bench.outputs import check_outputs
from mobiledeploy.bench.results import Measurement
from mobiledeploy.bench.stats import slowed_down, warnings_for
from mobiledeploy.devices.agent_session import arrays_of
from mobiledeploy.devices.python_device import LocalDevice
from mobiledeploy.devices.request import Request
from mobiledeploy.errors import UsageError
from mobiledeploy.runtimes.open import check_artifact
from mobiledeploy.utils.files import sha256_of
from mobiledeploy.utils.progress import step, track

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from mobiledeploy.devices.open import Device

RUNS = 100
WARMUP = 10
MIN_SESSIONS = 3
UNCHECKED = (
    "Its outputs could not be had from the device and were not checked: it may be fast and wrong."
)
_STEPS_PER_SESSION = 20


def measure(
    artifacts: Sequence[Path],
    *,
    device: Device | None = None,
    threads: int = 1,
    runs: int | None = None,
    warmup: int | None = None,
    duration_s: float | None = None,
    seed: int = 0,
    affinity: Sequence[int] = (),
    cool_down_s: float = 0,
) -> tuple[Measurement, ...]:
    """Measure the latency of artifacts on a device.

    Args:
        artifacts: `.onnx` and `.pte` files; one may come twice, to see how steady the machine is.
        device: From `devices.open_device`, entered; None: this machine.
        threads: Threads that compute one inference, in every runtime.
        runs: Inferences that count, of each artifact, over all sessions; None: 100.
        warmup: Inferences that come first and do not count, of each artifact in each session;
            None: 10.
        duration_s: Time for so long, over all sessions, in place of `runs`.
        seed: Of the order within the rounds.
        affinity: Cores to be bound to; none: all.
        cool_down_s: Rest before each session but the first.

    Returns:
        In the order of `artifacts`. `times_ms[i]` of all of them belong to one round, so that
        `stats.paired_ratio` can compare them.

    Raises:
        UsageError: nothing to measure, or a number that cannot be.
        ArtifactError: an artifact cannot be read, or its runtime does not accept it.
        RuntimeFailedError: a device or a runtime failed or crashed.
    """
    runs = RUNS if runs is None else runs
    warmup = WARMUP if warmup is None else warmup
    _check(artifacts, threads=threads, runs=runs, warmup=warmup, duration_s=duration_s)
    device = device or LocalDevice()
    for path in artifacts:
        check_artifact(path)
    digests = [sha256_of(path) for path in artifacts]
    inputs, expected = _expectations(device, artifacts)
    count = sessions_for(len(artifacts))
    orders = [load_order(len(artifacts), session) for session in range(count)]
    requests = [
        Request(
            task="bench",
            artifacts=tuple(artifacts[index] for index in order),
            inputs=tuple(inputs[index] for index in order),
            threads=threads,
            affinity=tuple(affinity),
            rounds=len(range(session, max(runs, count), count)),
            warmup=warmup,
            seed=seed + session,
            duration_s=None if duration_s is None else duration_s / count,
        )
        for session, order in enumerate(orders)
    ]
    results = _run_sessions(device, requests, cool_down_s)
    host = device.host
    conditions = tuple(result["result"]["conditions"] for result in results)
    measurements = []
    for index, path in enumerate(artifacts):
        places = [order.index(index) for order in orders]
        fresh = [r["result"]["fresh"] for r, p in zip(results, places, strict=True) if p == 0]
        times = [
            t for r, p in zip(results, places, strict=True) for t in r["result"]["times_ms"][p]
        ]
        found = [arrays_of(r)[p] for r, p in zip(results, places, strict=True)]
        told = [array for array in found if array is not None]
        measurement = Measurement(
            artifact=str(path),
            artifact_sha256=digests[index],
            runtime=fresh[0]["runtime"],
            device=host.label,
            threads=threads,
            warmup=warmup,
            times_ms=tuple(times),
            load_ms=statistics.median(f["load_ms"] for f in fresh),
            first_ms=statistics.median(f["first_ms"] for f in fresh),
            peak_memory_bytes=_median_bytes([f["peak_memory_bytes"] for f in fresh]),
            warnings=(
                *warnings_for(times, threads=threads, cores=len(affinity) or host.cores),
                *slowed_down(conditions),
                *([] if told or expected is None else [UNCHECKED]),
            ),
            conditions=conditions,
            outputs=check_outputs(expected[index], told) if told and expected else None,
        )
        measurements.append(measurement)
    return tuple(measurements)


def _expectations(device: Device, artifacts: Sequence[Path]) -> tuple[list[Any], list[Any] | None]:
    """Return inputs for each artifact, and what this machine makes of them.

    On this machine itself there is nothing to compare: it makes its inputs while it measures.
    """
    if device.is_local:
        return [None] * len(artifacts), None
    nothing = (None,) * len(artifacts)
    request = Request(task="outputs", artifacts=tuple(artifacts), inputs=nothing)
    with step("Running the artifacts here, to compare"):
        *_, last = LocalDevice().converse(request)
    return arrays_of(last, "inputs"), arrays_of(last)


def _median_bytes(values: list[int | None]) -> int | None:
    told = [value for value in values if value is not None]
    return statistics.median_low(told) if told else None


def sessions_for(artifacts: int) -> int:
    """Return how many sessions there are: at least 3, and each artifact the first equally often."""
    return artifacts * math.ceil(MIN_SESSIONS / artifacts)


def load_order(artifacts: int, session: int) -> list[int]:
    """Return the indices of the artifacts in the order in which a session loads them."""
    return [(session + place) % artifacts for place in range(artifacts)]


def _check(
    artifacts: Sequence[Path], *, threads: int, runs: int, warmup: int, duration_s: float | None
) -> None:
    if not artifacts:
        raise UsageError("There is nothing to measure.", remedy="Name at least one artifact.")
    for name, number, least in (("threads", threads, 1), ("runs", runs, 2), ("warmup", warmup, 0)):
        if number < least:
            raise UsageError(f"{name} is {number}; expected at least {least}.")
    if duration_s is not None and not 0 < duration_s < math.inf:
        raise UsageError(f"The duration is {duration_s} s; expected more than 0, and an end.")


def _run_sessions(
    device: Device, requests: Sequence[Request], cool_down_s: float
) -> list[Mapping[str, Any]]:
    """Run one session after the other, showing the progress that they report."""
    results: list[Mapping[str, Any]] = []

    def steps() -> Iterator[None]:
        shown = 0
        for request in requests:
            if results:
                time.sleep(cool_down_s)
            for message in device.converse(request):
                if "result" in message:
                    results.append(message)
                done = len(results) + message.get("progress", 0.0)
                now = int(done * _STEPS_PER_SESSION)
                yield from [None] * (now - shown)
                shown = max(shown, now)

    total = len(requests) * _STEPS_PER_SESSION
    for _ in track(steps(), f"Timing in {len(requests)} sessions", total):
        pass
    return results
