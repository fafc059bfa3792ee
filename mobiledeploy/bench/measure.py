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
from typing import TYPE_CHECKING, Any

from mobiledeploy.bench.process import converse
from mobiledeploy.bench.stats import doubts
from mobiledeploy.errors import ArtifactError, UsageError
from mobiledeploy.files import sha256_of
from mobiledeploy.progress import track
from mobiledeploy.runtimes.host import describe_host
from mobiledeploy.types import Measurement

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

MIN_SESSIONS = 3
_STEPS_PER_SESSION = 20


def measure(
    artifacts: Sequence[Path],
    *,
    threads: int = 1,
    runs: int = 100,
    warmup: int = 10,
    duration_s: float | None = None,
    seed: int = 0,
) -> tuple[Measurement, ...]:
    """Measure the latency of artifacts on this machine.

    Args:
        artifacts: `.onnx` and `.pte` files; one may come twice, to see how steady the machine is.
        threads: Threads that compute one inference, in every runtime.
        runs: Inferences that count, of each artifact, over all sessions.
        warmup: Inferences that come first and do not count, of each artifact in each session.
        duration_s: Time for so long, over all sessions, in place of `runs`.
        seed: Of the order within the rounds.

    Returns:
        In the order of `artifacts`. `times_ms[i]` of all of them belong to one round, so that
        `stats.paired_ratio` can compare them.

    Raises:
        UsageError: nothing to measure, or a number that cannot be.
        ArtifactError: an artifact cannot be read, or its runtime does not accept it.
        RuntimeFailedError: a runtime failed or crashed.
    """
    _check(artifacts, threads=threads, runs=runs, warmup=warmup, duration_s=duration_s)
    digests = [_sha256(path) for path in artifacts]
    count = sessions_for(len(artifacts))
    orders = [load_order(len(artifacts), session) for session in range(count)]
    requests = [
        {
            "artifacts": [str(artifacts[index]) for index in order],
            "threads": threads,
            "rounds": len(range(session, max(runs, count), count)),
            "warmup": warmup,
            "seed": seed + session,
            "duration_s": None if duration_s is None else duration_s / count,
        }
        for session, order in enumerate(orders)
    ]
    results = _run_sessions(requests)
    host = describe_host()
    measurements = []
    for index, path in enumerate(artifacts):
        pairs = list(zip(orders, results, strict=True))
        fresh = [result["fresh"] for order, result in pairs if order[0] == index]
        times = [t for order, result in pairs for t in result["times_ms"][order.index(index)]]
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
            peak_memory_bytes=statistics.median_low(f["peak_memory_bytes"] for f in fresh),
            warnings=doubts(times, threads=threads, cores=host.cores),
        )
        measurements.append(measurement)
    return tuple(measurements)


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
    if duration_s is not None and not duration_s > 0:
        raise UsageError(f"The duration is {duration_s} s; expected more than 0.")


def _sha256(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise ArtifactError(
            f"Could not read {path}: {error.strerror}.",
            remedy="Check the path, or make the artifact with `mobiledeploy export`.",
        ) from error


def _run_sessions(requests: Sequence[Mapping[str, object]]) -> list[Mapping[str, Any]]:
    """Run one session after the other, showing the progress that they report."""
    results: list[Mapping[str, Any]] = []

    def steps() -> Iterator[None]:
        shown = 0
        for request in requests:
            for message in converse(request):
                if "result" in message:
                    results.append(message["result"])
                done = len(results) + message.get("progress", 0.0)
                now = int(done * _STEPS_PER_SESSION)
                yield from [None] * (now - shown)
                shown = max(shown, now)

    total = len(requests) * _STEPS_PER_SESSION
    for _ in track(steps(), f"Timing in {len(requests)} sessions", total):
        pass
    return results
