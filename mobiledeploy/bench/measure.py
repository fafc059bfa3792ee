"""Measure the latency of artifacts against one another.

A run consists of sessions, each in a fresh process. A session loads all artifacts and measures load
time, first inference and peak memory of the first one. Then it times all of them, round by round
(`agent.timing.interleaved`). From session to session the order of loading moves on by one, so that
each artifact is loaded first equally often and none always has the same place in memory.

All raw times are kept; `stats` derives the statistics. Artifacts of one run are comparable; figures
of two runs are compared by `baseline`.
"""

from __future__ import annotations

import math
import statistics
import time
from typing import TYPE_CHECKING, Protocol

from mobiledeploy.bench.outputs import check_outputs
from mobiledeploy.bench.results import Measurement
from mobiledeploy.bench.stats import slowed_down, warnings_for
from mobiledeploy.bench.temperature import wait_until_below
from mobiledeploy.devices.agent_session import decode_inputs, decode_outputs
from mobiledeploy.devices.python_device import TIMEOUT_S, LocalDevice
from mobiledeploy.devices.request import Request
from mobiledeploy.errors import UsageError
from mobiledeploy.runtimes.open import check_artifact
from mobiledeploy.utils.arguments import StrPath, as_paths, require_device
from mobiledeploy.utils.files import sha256_of
from mobiledeploy.utils.progress import step, track

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from mobiledeploy.devices.open import Device
    from mobiledeploy.devices.request import Outputs, Result, Samples

    class Rest(Protocol):
        """Waits before a session."""

        def __call__(self, *, is_first: bool) -> None:
            """Wait."""


RUNS = 100
WARMUP = 10
MIN_SESSIONS = 3
UNCHECKED = "The device does not return outputs: whether they are correct was not checked."
_PROGRESS_STEPS = 20  # per session


def measure(
    artifacts: StrPath | Sequence[StrPath],
    *,
    device: Device | None = None,
    threads: int = 1,
    runs: int | None = None,
    warmup: int | None = None,
    duration_s: float | None = None,
    seed: int = 0,
    affinity: Sequence[int] = (),
    cool_down_s: float = 0,
    wait_below_c: float | None = None,
    wait_timeout_s: float = TIMEOUT_S,
) -> tuple[Measurement, ...]:
    """Measure the latency of artifacts on a device.

    Args:
        artifacts: One or more `.onnx` and `.pte` files. Naming one twice shows how steady the
            machine is.
        device: From `devices.open_device`, entered; None for this machine.
        threads: Threads that compute one inference, in every runtime.
        runs: Inferences of each artifact to time, over all sessions; None for 100.
        warmup: Inferences of each artifact before these, in each session; None for 10.
        duration_s: How long to time, over all sessions, in place of `runs`.
        seed: Seed of the order within the rounds.
        affinity: Cores that the process is bound to; empty for all.
        cool_down_s: Pause between sessions.
        wait_below_c: Before each session, wait until the device's hottest sensor is below this
            temperature; None to start at once.
        wait_timeout_s: How long each of these waits may take.

    Returns:
        In the order of `artifacts`. `times_ms[i]` of all of them belong to the same round, as
        `stats.paired_ratio` requires.

    Raises:
        UsageError: There are no artifacts, a number is out of range, or `wait_below_c` needs a
            sensor that the device does not have.
        ArtifactError: An artifact cannot be read, or its runtime rejects it.
        RuntimeFailedError: The device or a runtime failed or crashed, or the device stays too hot.
    """
    artifacts = as_paths(artifacts, "artifacts")
    require_device(device)
    runs = RUNS if runs is None else runs
    warmup = WARMUP if warmup is None else warmup
    _check(artifacts, threads=threads, runs=runs, warmup=warmup, duration_s=duration_s)
    device = device or LocalDevice()
    for path in artifacts:
        check_artifact(path)
    digests = [sha256_of(path) for path in artifacts]
    inputs, expected = _reference_outputs(device, artifacts)
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

    def rest(*, is_first: bool) -> None:
        if not is_first:
            time.sleep(cool_down_s)
        if wait_below_c is not None:
            wait_until_below(device, wait_below_c, timeout_s=wait_timeout_s)

    results = _run_sessions(device, requests, rest)
    cores = len(affinity) or device.host.cores
    return tuple(
        _measurement(
            path,
            digests[index],
            device.host.label,
            [(result, order.index(index)) for result, order in zip(results, orders, strict=True)],
            threads=threads,
            warmup=warmup,
            affinity=tuple(affinity),
            cores=cores,
            expected=None if expected is None else expected[index],
        )
        for index, path in enumerate(artifacts)
    )


def sessions_for(artifacts: int) -> int:
    """Return the number of sessions: at least 3, and each artifact is first equally often."""
    return artifacts * math.ceil(MIN_SESSIONS / artifacts)


def load_order(artifacts: int, session: int) -> list[int]:
    """Return the indices of the artifacts in the order in which a session loads them."""
    return [(session + place) % artifacts for place in range(artifacts)]


def _reference_outputs(
    device: Device, artifacts: Sequence[Path]
) -> tuple[Sequence[Samples | None], list[Outputs] | None]:
    """Return inputs for each artifact and this machine's outputs for them.

    On this machine there is nothing to compare: each session generates its inputs.
    """
    nothing = (None,) * len(artifacts)
    if device.is_local:
        return nothing, None
    request = Request(task="outputs", artifacts=tuple(artifacts), inputs=nothing)
    with step("Running the artifacts on this machine, for comparison"):
        *_, last = LocalDevice().run_session(request)
    result = last["result"]
    return decode_inputs(result["inputs"]), decode_outputs(result["outputs"])


def _measurement(
    path: Path,
    digest: str,
    label: str,
    sessions: Sequence[tuple[Result, int]],
    *,
    threads: int,
    warmup: int,
    affinity: tuple[int, ...],
    cores: int,
    expected: Outputs | None,
) -> Measurement:
    """Gather what the sessions measured of one artifact.

    Args:
        path: The artifact.
        digest: Its sha256.
        label: The device's label.
        sessions: The result of each session, and the artifact's place in its order.
        threads: See `measure`.
        warmup: See `measure`.
        affinity: See `measure`.
        cores: Cores that the process could use.
        expected: This machine's outputs; None if the device is this machine.
    """
    fresh = [result["fresh"] for result, place in sessions if place == 0]
    times_ms = [ms for result, place in sessions for ms in result["times_ms"][place]]
    conditions = tuple(result["conditions"] for result, _ in sessions)
    outputs = decode_outputs([result["outputs"][place] for result, place in sessions])
    memory = [f["peak_memory_bytes"] for f in fresh if f["peak_memory_bytes"] is not None]
    return Measurement(
        artifact=str(path),
        artifact_sha256=digest,
        runtime=fresh[0]["runtime"],
        device=label,
        threads=threads,
        warmup=warmup,
        affinity=affinity,
        times_ms=tuple(times_ms),
        load_ms=statistics.median(f["load_ms"] for f in fresh),
        first_ms=statistics.median(f["first_ms"] for f in fresh),
        peak_memory_bytes=statistics.median_low(memory) if memory else None,
        warnings=(
            *warnings_for(times_ms, threads=threads, cores=cores),
            *slowed_down(conditions),
            *([] if outputs or expected is None else [UNCHECKED]),
        ),
        conditions=conditions,
        outputs=None if expected is None or not outputs else check_outputs(expected, outputs),
    )


def _check(
    artifacts: Sequence[Path], *, threads: int, runs: int, warmup: int, duration_s: float | None
) -> None:
    if not artifacts:
        raise UsageError("There is nothing to measure.", remedy="Name at least one artifact.")
    for name, number, least in (("threads", threads, 1), ("runs", runs, 2), ("warmup", warmup, 0)):
        if number < least:
            raise UsageError(f"{name} is {number}; expected at least {least}.")
    if duration_s is not None and not 0 < duration_s < math.inf:
        raise UsageError(f"The duration is {duration_s} s; expected a finite number above 0.")


def _run_sessions(device: Device, requests: Sequence[Request], rest: Rest) -> list[Result]:
    """Run the sessions one after another, showing their progress; return their results.

    Args:
        device: Where they run.
        requests: One for each session.
        rest: Called before each session.
    """
    results: list[Result] = []

    def steps() -> Iterator[None]:
        shown = 0
        for request in requests:
            rest(is_first=not results)
            for message in device.run_session(request):
                if "result" in message:
                    results.append(message["result"])
                done = len(results) + message.get("progress", 0.0)
                now = int(done * _PROGRESS_STEPS)
                yield from [None] * (now - shown)
                shown = max(shown, now)

    total = len(requests) * _PROGRESS_STEPS
    for _ in track(steps(), f"Timing in {len(requests)} sessions", total):
        pass
    return results
