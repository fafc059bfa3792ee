"""The programs that run artifacts on Android, where there is no Python.

In: an artifact and how often to run it. Out: the command, and what its output says.
Flags and output are those of `examples/portable/executor_runner/executor_runner.cpp` (ExecuTorch
1.4) and `onnxruntime/test/perftest` (ONNX Runtime 1.20 and later). docs/devices.md: how to build.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mobiledeploy.errors import RuntimeFailedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """What one call of a runner says.

    Attributes:
        load_ms: From the file to a network that is ready.
        first_ms: The first inference.
        times_ms: Of those that count.
    """

    load_ms: float
    first_ms: float
    times_ms: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeRunner:
    """A program on this machine that is to run over there.

    Attributes:
        program: Its name, which the file's name has to contain.
        suffix: What it runs.
        runtime: What measurements call it.
        gives_outputs: Whether what it computes can be had.
    """

    path: Path
    program: ClassVar[str]
    suffix: ClassVar[str]
    runtime: ClassVar[str]
    gives_outputs: ClassVar[bool]

    @abstractmethod
    def timing_command(self, program: str, artifact: str, *, threads: int, runs: int) -> list[str]:
        """Return the argv that times `runs` inferences, in the folder where the files lie."""

    @abstractmethod
    def timing(self, said: str, *, warmup: int, runs: int) -> Timing:
        """Read what `timing_command` said of `warmup` inferences, which do not count, and `runs`.

        Raises:
            RuntimeFailedError: it does not say what it should.
        """


class ExecutorRunner(NativeRunner):
    """ExecuTorch's `executor_runner`, built with logging to stderr."""

    program = "executor_runner"
    suffix = ".pte"
    runtime = "executor_runner"
    gives_outputs = True

    def timing_command(self, program: str, artifact: str, *, threads: int, runs: int) -> list[str]:
        """See `NativeRunner`; its input is all ones, which takes as long as any other."""
        return [*self._command(program, artifact, threads), f"--num_executions={runs}"]

    def outputs_command(
        self, program: str, artifact: str, *, threads: int, inputs: str, outputs: str
    ) -> list[str]:
        """Return the argv that runs one batch: raw float32 in, raw float32 in `outputs`-0.bin."""
        files = [f"--inputs={inputs}", f"--output_file={outputs}"]
        return [*self._command(program, artifact, threads), *files]

    def timing(self, said: str, *, warmup: int, runs: int) -> Timing:
        """See `NativeRunner`."""
        load = re.findall(r"Model loaded in ([\d.]+) ms", said)
        times = [float(ms) for ms in re.findall(r"Iteration \d+ of \d+: ([\d.]+) ms", said)]
        if len(load) != 1 or len(times) != warmup + runs:
            raise _unreadable(self, said, "build it with -DEXECUTORCH_ENABLE_LOGGING=ON")
        return Timing(load_ms=float(load[0]), first_ms=times[0], times_ms=tuple(times[warmup:]))

    @staticmethod
    def _command(program: str, artifact: str, threads: int) -> list[str]:
        return [
            program,
            f"--model_path={artifact}",
            f"--cpu_threads={threads}",
            "--print_output=none",
        ]


class OnnxRuntimePerfTest(NativeRunner):
    """ONNX Runtime's `onnxruntime_perf_test`. It makes its inputs itself and keeps its outputs."""

    program = "onnxruntime_perf_test"
    suffix = ".onnx"
    runtime = "onnxruntime_perf_test"
    gives_outputs = False
    _ROWS = re.compile(r"^[^,\n]*,([\d.e+-]+),\d+,-?\d+,\d+$", re.MULTILINE)

    def timing_command(self, program: str, artifact: str, *, threads: int, runs: int) -> list[str]:
        """See `NativeRunner`: generated input, no spinning between runs, raw times in a file."""
        flags = ["-e", "cpu", "-m", "times", "-r", str(runs), "-x", str(threads), "-y", "1"]
        return [program, *flags, "-I", "-Z", "-S", "0", artifact, RESULT_FILE]

    def timing(self, said: str, *, warmup: int, runs: int) -> Timing:
        """See `NativeRunner`; `said` ends with the result file, whose times are in seconds."""
        load = re.findall(r"Session creation time cost: ([\d.e+-]+) s", said)
        first = re.findall(r"First inference time cost: (\d+) ms", said)
        times = [1e3 * float(seconds) for seconds in self._ROWS.findall(said)]
        if len(load) != 1 or len(first) != 1 or len(times) != warmup + runs:
            raise _unreadable(self, said, "build it from ONNX Runtime 1.20 or later")
        return Timing(
            load_ms=1e3 * float(load[0]),
            first_ms=float(first[0]),
            times_ms=tuple(times[warmup:]),
        )


RESULT_FILE = "result.csv"
KINDS: tuple[type[NativeRunner], ...] = (ExecutorRunner, OnnxRuntimePerfTest)
_LAST_WORDS = 5


def find_runners(
    given: Sequence[Path], folder: Path
) -> dict[type[NativeRunner], NativeRunner | None]:
    """Return a runner of each kind, where there is one.

    Args:
        given: Files that the user names.
        folder: Where others lie, under the program's own name.

    Raises:
        UsageError: a given file is no runner.
    """
    kinds = {path: kind for path in given for kind in KINDS if kind.program in path.name}
    if strange := [str(path) for path in given if path not in kinds or not path.is_file()]:
        raise UsageError(
            f"--runner {strange[0]} is not a runner.",
            remedy=f"It must be a file with {' or '.join(k.program for k in KINDS)} in its name.",
        )
    found: dict[type[NativeRunner], NativeRunner | None] = {}
    for kind in KINDS:
        named = [path for path, its in kinds.items() if its is kind]
        cached = [path for path in (folder / kind.program,) if path.is_file()]
        paths = named or cached
        found[kind] = kind(path=paths[0]) if paths else None
    return found


def runners_for(
    artifacts: Sequence[Path], given: Sequence[Path], folder: Path
) -> dict[str, NativeRunner]:
    """Return the runner for each suffix among the artifacts; otherwise as `find_runners`.

    Raises:
        UsageError: there is none for an artifact.
    """
    needed = {path.suffix for path in artifacts}
    runners = {}
    for kind, runner in find_runners(given, folder).items():
        if kind.suffix in needed and runner is None:
            raise UsageError(
                f"There is no {kind.program} to run {kind.suffix} files on Android with.",
                remedy=f"Build it (docs/devices.md says how) and name it with --runner, or put it "
                f"at {folder / kind.program}.",
            )
        if kind.suffix in needed and runner is not None:
            runners[kind.suffix] = runner
    return runners


def _unreadable(runner: NativeRunner, said: str, remedy: str) -> RuntimeFailedError:
    words = "\n".join(said.strip().splitlines()[-_LAST_WORDS:])
    return RuntimeFailedError(
        f"{runner.path.name} does not tell its times. It said:\n{words or '(nothing)'}",
        remedy=f"Other versions print other things: {remedy}.",
    )
