"""One session of the benchmark, in a process of its own: `python -m mobiledeploy.bench.child`.

Of its own, because only a fresh process can tell what loading takes in time and memory, because
ExecuTorch's thread pool belongs to the process, because a progress display would take CPU time from
what is timed, and because a runtime that crashes must not take the command with it.

In: one JSON request on stdin, the arguments of `session`.
Out: JSON messages on stdout, one a line.

    {"loading": PATH}                                 which artifact is next
    {"progress": F}                                   share of the rounds that are done, 0 to 1
    {"result": {"fresh": {...}, "times_ms": [...]}}   the last one, or
    {"error": {"type": ..., "message": ..., "remedy": ...}}
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from mobiledeploy.bench.interleave import interleaved
from mobiledeploy.bench.memory import PeakMemory
from mobiledeploy.errors import ArtifactError, MobileDeployError
from mobiledeploy.runtimes import open_runner, runner_type
from mobiledeploy.types import INPUT_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from mobiledeploy.runtimes import Runner

    Tell = Callable[[Mapping[str, Any]], None]

_PROGRESS_EVERY_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Fresh:
    """What a process measures of the first artifact that it loads.

    Attributes:
        runtime: Name and version.
        load_ms: From the file, which is in the page cache, to a runner that is ready. The runtime's
            library is imported before.
        first_ms: The first inference.
        peak_memory_bytes: Peak resident memory that these two added.
    """

    runtime: str
    load_ms: float
    first_ms: float
    peak_memory_bytes: int


def main() -> None:
    """Serve one request."""
    replies = _claim_stdout()
    tell = partial(_send, replies)
    try:
        tell({"result": session(**json.load(sys.stdin), tell=tell)})
    except MobileDeployError as error:
        reply = {"type": type(error).__name__, "message": error.message, "remedy": error.remedy}
        tell({"error": reply})


def session(
    *,
    artifacts: Sequence[str],
    threads: int,
    rounds: int,
    warmup: int,
    seed: int,
    duration_s: float | None,
    tell: Tell,
) -> dict[str, Any]:
    """Load all artifacts in the order given, time them against one another.

    Args:
        artifacts: Paths.
        threads: As `measure`.
        rounds: As `interleaved`; so are `warmup`, `seed` and `duration_s`.
        warmup: Rounds.
        seed: Of the order.
        duration_s: In place of `rounds`.
        tell: Hears of the progress.

    Returns:
        "fresh", the fields of `Fresh` of the first artifact, and "times_ms", [artifact][round].
    """
    paths = [Path(artifact) for artifact in artifacts]
    for path in paths:
        runner_type(path)
    with ExitStack() as stack:
        tell({"loading": artifacts[0]})
        runner, fresh = load_fresh(paths[0], threads)
        runners = [stack.enter_context(runner)]
        for path in paths[1:]:
            tell({"loading": str(path)})
            runners.append(stack.enter_context(open_runner(path, threads=threads)))
        inferences = [
            partial(runner.run, example_input(path, runner))
            for path, runner in zip(paths, runners, strict=True)
        ]
        times_ms = interleaved(
            inferences,
            rounds=rounds,
            warmup=warmup,
            seed=seed,
            duration_s=duration_s,
            after_round=ProgressReport(tell, rounds=rounds, duration_s=duration_s),
        )
    return {"fresh": asdict(fresh), "times_ms": times_ms}


def load_fresh(path: Path, threads: int) -> tuple[Runner, Fresh]:
    """Load the first artifact of this process and run it once."""
    path.read_bytes()
    memory = PeakMemory()
    began = time.perf_counter()
    runner = open_runner(path, threads=threads)
    loaded = time.perf_counter()
    batch = example_input(path, runner)
    prepared = time.perf_counter()
    runner.run(batch)
    ran = time.perf_counter()
    return runner, Fresh(
        runtime=f"{runner.runtime} {runner.version}",
        load_ms=1e3 * (loaded - began),
        first_ms=1e3 * (ran - prepared),
        peak_memory_bytes=memory.added_bytes(),
    )


def example_input(path: Path, runner: Runner) -> dict[str, NDArray[np.float32]]:
    """Return one batch of seeded normal noise: what images look like after normalisation.

    Raises:
        ArtifactError: the input's height and width are not fixed.
    """
    if runner.input_shape is None:
        raise ArtifactError(
            f"{path} takes images of any size: there is no one latency to measure.",
            remedy="Export it with a fixed resolution.",
        )
    shape = (runner.batch_size or 1, *runner.input_shape)
    return {INPUT_NAME: np.random.default_rng(0).standard_normal(shape, dtype=np.float32)}


class ProgressReport:
    """Tells of the progress now and then, between rounds, where it disturbs nothing."""

    def __init__(
        self,
        tell: Tell,
        *,
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


def _claim_stdout() -> TextIO:
    """Keep stdout for the messages: whatever else is printed, also by C++, goes to stderr."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return replies


def _send(replies: TextIO, message: Mapping[str, Any]) -> None:
    replies.write(json.dumps(message) + "\n")
    replies.flush()


if __name__ == "__main__":
    main()
