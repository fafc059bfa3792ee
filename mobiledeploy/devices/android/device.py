"""An Android phone with runners that the user built, which take the place of the agent.

A session works as on every device: send the files into a new folder, below `/data/local/tmp`, check
their sha256 there, run, pull the outputs, remove the folder.
"""

from __future__ import annotations

import base64
import contextlib
import math
import random
import secrets
import shlex
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from mobiledeploy.devices.agent.machine import conditions, core_mhz
from mobiledeploy.devices.android.adb import Phone, choose, listed_phones
from mobiledeploy.devices.android.pte_outputs import output_tensors
from mobiledeploy.devices.android.runners import (
    RESULT_FILE,
    ExecutorRunner,
    NativeRunner,
    Timing,
    find_runners,
    runners_for,
)
from mobiledeploy.devices.host import Host, parse_cpuinfo
from mobiledeploy.devices.python_device import TIMEOUT_S
from mobiledeploy.devices.request import artifact_file, request_files, to_npy
from mobiledeploy.errors import RuntimeFailedError, UsageError
from mobiledeploy.utils.files import removed_when_done, sha256_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from mobiledeploy.devices.android.pte_outputs import OutputTensor
    from mobiledeploy.devices.request import Conditions, Message, Outputs, Request

FOLDER = "/data/local/tmp"
_BLOCK = 10  # runs of one artifact in a row, before the turn of the next artifact
_SYS_FILES = (
    "/sys/class/thermal/thermal_zone*/temp "
    "/sys/devices/system/cpu/cpu*/cpufreq/scaling_cur_freq "
    "/sys/devices/system/cpu/cpu*/cpufreq/cpuinfo_max_freq "
    "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
)


class BuiltRunnersDevice:
    """`adb://SERIAL`, or `adb://` where only one phone is connected, with `--runner PATH`.

    Args:
        uri: The device.
        runners: Programs on this machine for the kinds of artifacts that will be run.
        timeout_s: How long one command on the phone may take.
    """

    is_local = False
    traces_operators = False

    def __init__(
        self, uri: str, *, runners: Sequence[Path] = (), timeout_s: float = TIMEOUT_S
    ) -> None:
        self.uri = uri
        self._runners = runners
        self._timeout_s = timeout_s
        self._phone: Phone | None = None

    def __enter__(self) -> Self:
        """Choose the phone.

        Raises:
            UsageError: There are several phones, or none with that serial.
            RuntimeFailedError: There is no phone, or it is not ready.
        """
        serial = choose(listed_phones(), self.uri.removeprefix("adb://").strip("/"))
        self._phone = Phone(serial=serial, uri=self.uri, timeout_s=self._timeout_s)
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: every session removes its own files."""

    @cached_property
    def host(self) -> Host:
        """Return the phone's description.

        Raises:
            RuntimeFailedError: The phone does not answer.
        """
        phone = self._entered()
        model, system = phone.identity()
        architecture, cores = phone.shell("uname -m; nproc").split()
        _, features = parse_cpuinfo(phone.shell("cat /proc/cpuinfo"))
        return Host(
            architecture=architecture,
            model=model,
            cores=int(cores),
            features=features,
            uri=self.uri,
            os=system,
            runtimes={
                kind.program: None if runner is None else str(runner.path)
                for kind, runner in find_runners(self._runners).items()
            },
            conditions=dict(_read_conditions(phone)),
            core_mhz=_read_core_mhz(phone),
        )

    def conditions(self) -> Mapping[str, object]:
        """Return what the phone's speed depends on, now."""
        return dict(_read_conditions(self._entered()))

    def run_session(self, request: Request) -> Iterator[Message]:
        """Run one session; yield "loading" and "progress" messages, and "result" last.

        Raises:
            UsageError: The request needs what native runners do not have, or there is no runner for
                an artifact.
            RuntimeFailedError: adb, the phone or a runner failed. The session's folder is removed,
                unless the phone has disappeared.
        """
        phone = self._entered()
        if request.task not in ("bench", "outputs"):
            raise UsageError(
                f"{self.uri} runs artifacts with native programs, which do not report operators.",
                remedy="Profile on this machine, or on an ARM board over ssh.",
            )
        if request.duration_s is not None:
            raise UsageError(
                "Native runners take a number of inferences, not a duration.",
                remedy="Use --runs, not --duration.",
            )
        session = _Session(
            phone=phone,
            request=request,
            runners=runners_for(request.artifacts, self._runners),
            folder=f"{FOLDER}/mobiledeploy-{secrets.token_hex(4)}",
        )
        phone.shell(f"mkdir {session.folder}")
        try:
            session.send_files()
            yield from session.bench() if request.task == "bench" else session.run_only()
        finally:
            phone.remove_folder(session.folder)

    def _entered(self) -> Phone:
        assert self._phone is not None, "the device has not been entered"
        return self._phone


@dataclass(frozen=True, slots=True, kw_only=True)
class _Session:
    """One session: a request, the runners for its artifacts by suffix, and its folder."""

    phone: Phone
    request: Request
    runners: Mapping[str, NativeRunner]
    folder: str

    def send_files(self) -> None:
        """Push artifacts, inputs and runners; check their sha256 on the phone."""
        with removed_when_done("mobiledeploy-") as scratch:
            files = self._write_files(scratch)
            folders = sorted({str(Path(name).parent) for name in files} - {"."})
            self._shell(f"mkdir -p {' '.join(folders)}")
            for name, path in files.items():
                self.phone.push(path, f"{self.folder}/{name}")
            output = self._shell(f"sha256sum {' '.join(map(shlex.quote, files))}")
            digests = [line.split()[0].lstrip("\\") for line in output.splitlines()]
            for (name, path), found in zip(files.items(), digests, strict=True):
                expected = sha256_of(path)
                if found != expected:
                    raise RuntimeFailedError(
                        f"{name} arrived damaged on {self.phone.uri}: its sha256 is "
                        f"{found[:12]}..., expected {expected[:12]}...",
                        remedy="Run the command again. If it fails again, try another cable.",
                    )
        programs = " ".join(shlex.quote(runner.path.name) for runner in self.runners.values())
        self._shell(f"chmod 755 {programs}")

    def bench(self) -> Iterator[Message]:
        """Time the artifacts in blocks of runs; their order is shuffled in each block."""
        order = random.Random(self.request.seed)  # noqa: S311 - an order, not a secret
        artifacts = range(len(self.request.artifacts))
        timings: dict[int, list[Timing]] = defaultdict(list)
        yield {"loading": str(self.request.artifacts[0])}
        before = _read_conditions(self.phone)
        blocks = _blocks(self.request.rounds)
        for block, runs in enumerate(blocks, 1):
            turns = order.sample(artifacts, len(artifacts))
            if block == 1:
                turns.sort(key=bool)  # the session's first artifact is loaded first
            for index in turns:
                timings[index].append(self._time(index, runs))
            yield {"progress": block / len(blocks)}
        after = _read_conditions(self.phone)
        first = timings[0][0]
        yield {
            "result": {
                "fresh": {
                    "runtime": self._runner(0).runtime,
                    "load_ms": first.load_ms,
                    "first_ms": first.first_ms,
                    "peak_memory_bytes": None,
                },
                "times_ms": [
                    [ms for timing in timings[index] for ms in timing.times_ms]
                    for index in artifacts
                ],
                "conditions": {"before": before, "after": after},
                "outputs": self._outputs(),
            }
        }

    def run_only(self) -> Iterator[Message]:
        """Run the inputs through the artifacts.

        Raises:
            UsageError: A runner does not return outputs, or no inputs were sent.
        """
        for index, path in enumerate(self.request.artifacts):
            if not self._runner(index).returns_outputs:
                raise UsageError(
                    f"{path}: {self._runner(index).program} does not return its outputs, so they "
                    "cannot be compared.",
                    remedy="Compare the .pte of the same network: it holds the same integers.",
                )
        if any(samples is None for samples in self.request.inputs):
            raise UsageError(
                "A phone cannot generate inputs for outputs that are to be compared.",
                remedy="Pass inputs.",
            )
        yield {"result": {"outputs": self._outputs()}}

    def _write_files(self, scratch: Path) -> dict[str, Path]:
        """Write what has to be pushed; return local paths by their names in the folder."""
        contents = request_files(self.request)
        for index, samples in enumerate(self.request.inputs):
            for number, sample in enumerate(() if samples is None else samples):
                contents[_sample_file(index, number)] = np.ascontiguousarray(sample).tobytes()
        files = {}
        for name, data in contents.items():
            files[name] = scratch / name
            files[name].parent.mkdir(exist_ok=True)
            files[name].write_bytes(data)
        return files | {runner.path.name: runner.path for runner in self.runners.values()}

    def _time(self, index: int, runs: int) -> Timing:
        """Time one artifact for a block of runs, after the warm-up runs."""
        runner = self._runner(index)
        argv = runner.timing_command(
            f"./{runner.path.name}",
            artifact_file(index, self.request.artifacts[index]),
            threads=self.request.threads,
            runs=self.request.warmup + runs,
        )
        print_result = f"; r=$?; cat {RESULT_FILE} 2>/dev/null; rm -f {RESULT_FILE}; exit $r"
        output = self._shell(self._with_affinity(argv) + print_result)
        return runner.timing(output, warmup=self.request.warmup, runs=runs)

    def _outputs(self) -> list[list[str] | None]:
        """Run all samples that were sent; return the outputs as `.npy` files in base64."""
        encoded: list[list[str] | None] = []
        for index, samples in enumerate(self.request.inputs):
            runner = self._runner(index)
            if samples is None or not isinstance(runner, ExecutorRunner):
                encoded.append(None)
                continue
            batches = [self._outputs_of(runner, index, number) for number in range(len(samples))]
            stacked = [np.concatenate(parts) for parts in zip(*batches, strict=True)]
            encoded.append([base64.b64encode(to_npy(each)).decode() for each in stacked])
        return encoded

    def _outputs_of(self, runner: ExecutorRunner, index: int, number: int) -> Outputs:
        """Run one sample through one artifact; return its outputs, (1, ...) each."""
        argv = runner.outputs_command(
            f"./{runner.path.name}",
            artifact_file(index, self.request.artifacts[index]),
            threads=self.request.threads,
            inputs=_sample_file(index, number),
            outputs="output",
        )
        self._shell(self._with_affinity(argv))
        found = []
        with removed_when_done("mobiledeploy-") as scratch:
            for place, output in enumerate(output_tensors(self.request.artifacts[index])):
                target = scratch / "output"
                self.phone.pull(f"{self.folder}/output-{place}.bin", target)
                found.append(_read_output(target, output, self._artifact(index)))
        self._shell("rm output-*.bin")
        return tuple(found)

    def _artifact(self, index: int) -> str:
        return f"{self.request.artifacts[index]} on {self.phone.uri}"

    def _runner(self, index: int) -> NativeRunner:
        return self.runners[self.request.artifacts[index].suffix]

    def _with_affinity(self, argv: list[str]) -> str:
        """Return a command for the phone's shell, bound to the cores of the request."""
        mask = sum(1 << core for core in self.request.affinity)
        taskset = ["taskset", f"{mask:x}"] if mask else []
        return shlex.join([*taskset, *argv]) + " 2>&1"

    def _shell(self, command: str) -> str:
        return self.phone.shell(f"cd {self.folder} && {command}")


def _read_conditions(phone: Phone) -> Conditions:
    with _copied_sys(phone) as folder:
        return conditions(folder)


def _read_core_mhz(phone: Phone) -> Mapping[int, float]:
    with _copied_sys(phone) as folder:
        return {int(core): mhz for core, mhz in core_mhz(folder).items()}


@contextlib.contextmanager
def _copied_sys(phone: Phone) -> Iterator[str]:
    """Copy the phone's files about its speed into a folder, to be read as on other devices."""
    output = phone.shell(
        f'for f in {_SYS_FILES}; do [ -r "$f" ] && echo "$f" $(cat "$f"); done; true'
    )
    with removed_when_done("mobiledeploy-") as scratch:
        for line in output.splitlines():
            name, _, text = line.partition(" ")
            if name.startswith("/sys/"):
                copy = scratch / name.lstrip("/")
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_text(text)
        yield f"{scratch}/sys"


def _blocks(rounds: int) -> list[int]:
    """Return the number of timed runs of each block."""
    full, rest = divmod(rounds, _BLOCK)
    return [_BLOCK] * full + ([rest] if rest else [])


def _read_output(path: Path, output: OutputTensor, name: str) -> NDArray[Any]:
    """Return the output in a raw file.

    Raises:
        RuntimeFailedError: The file has another size.
    """
    data, dtype = path.read_bytes(), np.dtype(output.dtype).newbyteorder("<")
    if len(data) != math.prod(output.shape) * dtype.itemsize:
        raise RuntimeFailedError(
            f"{name} returned an output of {len(data)} bytes; expected {output.dtype}"
            f" {output.shape}.",
            remedy="Build the runner from the ExecuTorch that exported the file.",
        )
    return np.frombuffer(data, dtype).reshape(output.shape)


def _sample_file(index: int, number: int) -> str:
    """Return the name that one sample of an artifact's inputs has on the phone."""
    return f"{index}/input{number}.bin"
