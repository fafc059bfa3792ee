"""The native programs that run artifacts on Android, where there is no Python.

Flags and output are those of `examples/portable/executor_runner/executor_runner.cpp` (ExecuTorch
1.4) and `onnxruntime/test/perftest` (ONNX Runtime 1.20 and later). The documentation of devices
says how to build them.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mobiledeploy.devices.command_output import last_output
from mobiledeploy.errors import RuntimeFailedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

RESULT_FILE = "result.csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The times of one call of a runner.

    Attributes:
        load_ms: From opening the file until the network is ready.
        first_ms: The first inference.
        times_ms: The inferences after the warm-up.
    """

    load_ms: float
    first_ms: float
    times_ms: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeRunner:
    """A program on this machine that will run on the phone.

    Attributes:
        path: The program's file.
        program: Its name, which the file's name has to contain.
        suffix: The suffix of the artifacts that it runs.
        runtime: Its name in measurements.
        returns_outputs: Whether it returns the outputs of the network.
    """

    path: Path
    program: ClassVar[str]
    suffix: ClassVar[str]
    runtime: ClassVar[str]
    returns_outputs: ClassVar[bool]

    @abstractmethod
    def timing_command(self, program: str, artifact: str, *, threads: int, runs: int) -> list[str]:
        """Return the argv that times inferences, in the folder of the session.

        Args:
            program: This program's path on the phone.
            artifact: The artifact's path on the phone.
            threads: Threads that compute one inference.
            runs: Inferences to run.
        """

    @abstractmethod
    def timing(self, output: str, *, warmup: int, runs: int) -> Timing:
        """Read the output of `timing_command` for `warmup` + `runs` inferences.

        Raises:
            RuntimeFailedError: Times are missing from it, or zero.
        """


class ExecutorRunner(NativeRunner):
    """ExecuTorch's `executor_runner`, built with logging to stderr."""

    program = "executor_runner"
    suffix = ".pte"
    runtime = "executor_runner"
    returns_outputs = True

    def timing_command(self, program: str, artifact: str, *, threads: int, runs: int) -> list[str]:
        """See `NativeRunner`. The input is all ones; it does not influence the time."""
        return [*self._command(program, artifact, threads), f"--num_executions={runs}"]

    def outputs_command(
        self, program: str, artifact: str, *, threads: int, inputs: str, outputs: str
    ) -> list[str]:
        """Return the argv that runs one batch from a raw file into `outputs`-0.bin, -1.bin, ..."""
        files = [f"--inputs={inputs}", f"--output_file={outputs}"]
        return [*self._command(program, artifact, threads), *files]

    def timing(self, output: str, *, warmup: int, runs: int) -> Timing:
        """See `NativeRunner`."""
        load = re.findall(r"Model loaded in ([\d.]+) ms", output)
        times = [float(ms) for ms in re.findall(r"Iteration \d+ of \d+: ([\d.]+) ms", output)]
        if len(load) != 1 or len(times) != warmup + runs or not all(times):
            raise _unreadable(self, output, "build it with -DEXECUTORCH_ENABLE_LOGGING=ON")
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
    """ONNX Runtime's `onnxruntime_perf_test`, which generates its inputs and drops its outputs."""

    program = "onnxruntime_perf_test"
    suffix = ".onnx"
    runtime = "onnxruntime_perf_test"
    returns_outputs = False
    _ROWS = re.compile(r"^[^,\n]*,([\d.e+-]+),\d+,-?\d+,\d+$", re.MULTILINE)

    def timing_command(self, program: str, artifact: str, *, threads: int, runs: int) -> list[str]:
        """See `NativeRunner`: generated input, no spinning between runs, raw times in a file."""
        flags = ["-e", "cpu", "-m", "times", "-r", str(runs), "-x", str(threads), "-y", "1"]
        return [program, *flags, "-I", "-Z", "-S", "0", artifact, RESULT_FILE]

    def timing(self, output: str, *, warmup: int, runs: int) -> Timing:
        """See `NativeRunner`; the output ends with the result file, whose times are in seconds."""
        load = re.findall(r"Session creation time cost: ([\d.e+-]+) s", output)
        first = re.findall(r"First inference time cost: (\d+) ms", output)
        times = [1e3 * float(seconds) for seconds in self._ROWS.findall(output)]
        if len(load) != 1 or len(first) != 1 or len(times) != warmup + runs or not all(times):
            raise _unreadable(self, output, "build it from ONNX Runtime 1.20 or later")
        return Timing(
            load_ms=1e3 * float(load[0]),
            first_ms=float(first[0]),
            times_ms=tuple(times[warmup:]),
        )


KINDS: tuple[type[NativeRunner], ...] = (ExecutorRunner, OnnxRuntimePerfTest)


def find_runners(given: Sequence[Path]) -> dict[type[NativeRunner], NativeRunner | None]:
    """Return a runner of each kind, None where there is none.

    Args:
        given: Files that the user named.

    Raises:
        UsageError: A given file does not exist, or its name is not that of a runner.
    """
    kinds = {path: kind for path in given for kind in KINDS if kind.program in path.name}
    if unknown := [str(path) for path in given if path not in kinds or not path.is_file()]:
        raise UsageError(
            f"--runner {unknown[0]} is not a runner.",
            remedy="Use native or python, or name a file with "
            f"{' or '.join(k.program for k in KINDS)} in its name.",
        )
    found: dict[type[NativeRunner], NativeRunner | None] = {}
    for kind in KINDS:
        named = [path for path, its_kind in kinds.items() if its_kind is kind]
        found[kind] = kind(path=named[0]) if named else None
    return found


def runners_for(artifacts: Sequence[Path], given: Sequence[Path]) -> dict[str, NativeRunner]:
    """Return the runner for each suffix among the artifacts; see `find_runners`.

    Raises:
        UsageError: There is no runner for an artifact.
    """
    needed = {path.suffix for path in artifacts}
    runners = {}
    for kind, runner in find_runners(given).items():
        if kind.suffix in needed and runner is None:
            raise UsageError(
                f"No --runner is {kind.program}, which runs {kind.suffix} files on Android.",
                remedy="Name one, or remove --runner: `mobiledeploy device setup` installs a runner"
                " for both formats.",
            )
        if kind.suffix in needed and runner is not None:
            runners[kind.suffix] = runner
    return runners


def _unreadable(runner: NativeRunner, output: str, remedy: str) -> RuntimeFailedError:
    return RuntimeFailedError(
        f"{runner.path.name} does not print its times."
        + (last_output(output) or " It printed nothing."),
        remedy=f"Its output depends on the version and the build: {remedy}.",
    )
