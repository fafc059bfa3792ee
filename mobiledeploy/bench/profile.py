"""Where the time goes: each operator of an artifact, as its runtime runs it on this machine.

In: a `.onnx` or a `.pte`. Out: a `Profile`.

ONNX Runtime tells by itself: its profiler times every kernel of a real inference. ExecuTorch's
wheels have no such thing; there every operator of the XNNPACK delegate is run alone, with the
shapes, weights and encodings that it has in the network, and the cost of a call that does nothing
is taken off (`runtimes.xnnpack_operators`). Alone, an operator finds its weights in the cache and
its input not; how far the sum is from the whole network, which is timed too, says how much to
believe.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mobiledeploy.bench.xnnpack_operators import SingleOperator, empty_operator, single_operators
from mobiledeploy.devices.open import run_tracked
from mobiledeploy.devices.request import OperatorProgram, Request
from mobiledeploy.errors import ArtifactError, UsageError
from mobiledeploy.network import INPUT_NAME
from mobiledeploy.runtimes.open import check_artifact, open_runner
from mobiledeploy.utils.progress import track

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mobiledeploy.devices.open import Device

_WARMUP = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorTime:
    """One operator.

    Attributes:
        name: As the runtime calls it, or what it is and where.
        kind: Of the operator.
        median_us: Of one run.
    """

    name: str
    kind: str
    median_us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KindTime:
    """All operators of one kind.

    Attributes:
        share: Of the sum over all operators, 0 to 1.
    """

    kind: str
    count: int
    total_us: float
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One artifact.

    Attributes:
        runtime: Name and version.
        method: How operators were timed.
        threads: That computed one inference.
        whole_us: Median of the whole network without a profiler, timed in turn with the operators.
        operators: In the order in which they run.
    """

    artifact: str
    runtime: str
    method: str
    threads: int
    whole_us: float
    operators: tuple[OperatorTime, ...]

    @property
    def sum_us(self) -> float:
        """Return the sum over all operators."""
        return sum(operator.median_us for operator in self.operators)

    def by_kind(self) -> tuple[KindTime, ...]:
        """Return the operators by kind, those that take the most time first."""
        times: dict[str, list[float]] = {}
        for operator in self.operators:
            times.setdefault(operator.kind, []).append(operator.median_us)
        total = self.sum_us
        kinds = (
            KindTime(kind=kind, count=len(of), total_us=sum(of), share=sum(of) / total)
            for kind, of in times.items()
        )
        return tuple(sorted(kinds, key=lambda each: -each.total_us))


def profile(path: Path, *, runs: int = 50, threads: int = 1) -> Profile:
    """Time every operator of an artifact.

    Args:
        path: A `.onnx` or a `.pte`.
        runs: How many count, of each operator.
        threads: That compute one inference.

    Raises:
        UsageError: fewer than one run or thread.
        ArtifactError: the artifact cannot be read, or holds no operator that could be timed.
        RuntimeFailedError: its runtime failed.
    """
    if runs < 1 or threads < 1:
        raise UsageError(f"{runs} runs on {threads} threads; expected one of each at least.")
    with open_runner(path, threads=threads) as runner:
        if runner.input_shape is None:
            raise ArtifactError(
                f"{path} takes images of any size: there is no one latency to measure.",
                remedy="Export it with a fixed resolution.",
            )
        runtime = f"{runner.runtime} {runner.version}"
        shape = (runner.batch_size or 1, *runner.input_shape)
        batch = {INPUT_NAME: np.random.default_rng(0).standard_normal(shape, dtype=np.float32)}
        whole: list[float] = []

        def time_whole() -> None:
            runner.run(batch)
            whole.append(_elapsed_us(lambda: runner.run(batch)))

        operators, method = (
            _profile_onnx(path, batch, runs, threads, time_whole)
            if path.suffix == ".onnx"
            else _profile_pte(path, runs, threads, time_whole)
        )
    if not operators:
        raise ArtifactError(
            f"{path} holds no operator that could be timed.",
            remedy="Of a .pte, only what an XNNPACK delegate runs can be.",
        )
    return Profile(
        artifact=str(path),
        runtime=runtime,
        method=method,
        threads=threads,
        whole_us=statistics.median(whole),
        operators=operators,
    )


def _profile_onnx(
    path: Path,
    batch: dict[str, np.ndarray],
    runs: int,
    threads: int,
    time_whole: Callable[[], None],
) -> tuple[tuple[OperatorTime, ...], str]:
    from mobiledeploy.runtimes.profiles import run_profiled

    profiled = run_profiled(
        path, batch, runs=runs + _WARMUP, threads=threads, before_each=time_whole
    )
    operators = tuple(
        OperatorTime(
            name=f"{operator.kind} {operator.name} {list(operator.writes[0][1])}",
            kind=operator.kind,
            median_us=statistics.median(operator.times_us[_WARMUP:]),
        )
        for operator in profiled
    )
    return operators, "ONNX Runtime's profiler, within whole inferences"


def _profile_pte(
    path: Path, runs: int, threads: int, time_whole: Callable[[], None]
) -> tuple[tuple[OperatorTime, ...], str]:
    from mobiledeploy.bench.xnnpack_operators import empty_operator, single_operators
    from mobiledeploy.runtimes.executorch import SingleOperatorRunner

    cut = (empty_operator(), *single_operators(path))
    runners = [
        SingleOperatorRunner(operator.name, operator.program, operator.inputs, threads=threads)
        for operator in cut
    ]
    times: list[list[float]] = [[] for _ in runners]
    for _ in track(range(runs), f"Timing the operators of {path.name}", runs):
        time_whole()
        for runner, of in zip(runners, times, strict=True):
            runner.run()
            of.append(_elapsed_us(runner.run))
    call_us, *medians = (statistics.median(of) for of in times)
    operators = tuple(
        OperatorTime(name=operator.name, kind=operator.kind, median_us=max(0.0, median - call_us))
        for operator, median in zip(cut[1:], medians, strict=True)
    )
    return operators, f"each operator alone, less {call_us:.1f} us for the call"


def _elapsed_us(run: Callable[[], object]) -> float:
    began = time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - began) / 1e3


_WARMUP = 5


def profile_on(device: Device, path: Path, *, runs: int = 50, threads: int = 1) -> Profile:
    """Time every operator of an artifact on a device.

    Args:
        device: From `devices.open_device`, entered.
        path: A `.onnx` or a `.pte`.
        runs: How many count, of each operator.
        threads: That compute one inference.

    Raises:
        UsageError: fewer than one run or thread, or a device whose runners do not tell.
        ArtifactError: the artifact cannot be read, or holds no operator that could be timed.
        RuntimeFailedError: the device or its runtime failed.
    """
    if runs < 1 or threads < 1:
        raise UsageError(f"{runs} runs on {threads} threads; expected one of each at least.")
    check_artifact(path)
    cut = _operators(path) if path.suffix == ".pte" else ()
    request = Request(
        task="profile",
        artifacts=(path,),
        inputs=(None,),
        threads=threads,
        rounds=runs,
        warmup=_WARMUP,
        operators=tuple(
            OperatorProgram(label=each.name, data=each.program, inputs=each.inputs) for each in cut
        ),
    )
    description = f"Timing the operators of {path.name} on {device.uri}"
    result = run_tracked(device, request, description)["result"]
    medians = [statistics.median(each["times_us"]) for each in result["operators"]]
    if cut:
        call_us, *alone = medians
        medians = [max(0.0, us - call_us) for us in alone]
        method = f"each operator alone, less {call_us:.1f} us for the call"
        names = [(operator.name, operator.kind) for operator in cut[1:]]
    else:
        method = "ONNX Runtime's profiler, within whole inferences"
        names = [(each["name"], each["kind"]) for each in result["operators"]]
    return Profile(
        artifact=str(path),
        runtime=f"{result['runtime']} on {device.host.label}",
        method=method,
        threads=threads,
        whole_us=statistics.median(result["whole_us"]),
        operators=tuple(
            OperatorTime(name=name, kind=kind, median_us=us)
            for (name, kind), us in zip(names, medians, strict=True)
        ),
    )


def _operators(path: Path) -> tuple[SingleOperator, ...]:
    """Return one that does nothing, and all of a `.pte`."""
    operators = tuple(single_operators(path))
    if not operators:
        raise ArtifactError(
            f"{path} holds no operator that could be timed.",
            remedy="Of a .pte, only what an XNNPACK delegate runs can be.",
        )
    return empty_operator(), *operators
