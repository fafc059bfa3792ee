"""An Android phone: the real `adb` client, and native runners in place of the agent.

The steps are those of every device: describe, push into a fresh folder under `/data/local/tmp`
with the sha256 checked over there, run, pull, clean up.
"""

from __future__ import annotations

import base64
import contextlib
import random
import secrets
import shlex
import tempfile
from collections import defaultdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from mobiledeploy.devices.agent.machine import conditions
from mobiledeploy.devices.android.adb import QUICK_S, choose, listed_phones, run_adb, tail
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
from mobiledeploy.devices.request import as_npy, files_of
from mobiledeploy.errors import RuntimeFailedError, UsageError
from mobiledeploy.utils.files import cache_folder, sha256_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mobiledeploy.devices.request import Message, Request

PLACE = "/data/local/tmp"
_BLOCK = 10  # runs of one artifact in a row, before the next artifact's turn
_END = "mobiledeploy-ended:"
# adb's daemon ends only the shell of a connection that is gone, not the runner
_KILL_AND_REMOVE = """for p in /proc/[0-9]*; do
case "$(readlink $p/cwd 2>/dev/null)" in {there}) kill -9 ${{p##*/}};; esac
done
rm -rf {there}"""
_SYS_FILES = (
    "/sys/class/thermal/thermal_zone*/temp "
    "/sys/devices/system/cpu/cpu*/cpufreq/scaling_cur_freq "
    "/sys/devices/system/cpu/cpu*/cpufreq/cpuinfo_max_freq "
    "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
)


class AdbDevice:
    """`adb://SERIAL`, or `adb://` where only one phone is connected.

    Args:
        uri: Which.
        runners: Native runners of this machine, for those artifacts that are to be run.
        timeout_s: How long one command over there may take.
    """

    is_local = False

    def __init__(
        self, uri: str, *, runners: Sequence[Path] = (), timeout_s: float = TIMEOUT_S
    ) -> None:
        self.uri = uri
        self._wanted = uri.removeprefix("adb://").strip("/")
        self._given = runners
        self._folder = cache_folder() / "runners"
        self._timeout_s = timeout_s
        self._serial = ""

    def __enter__(self) -> Self:
        """Choose the phone.

        Raises:
            UsageError: there are several, or none of that serial.
            RuntimeFailedError: there is none, or it cannot be used as it is.
        """
        self._serial = choose(listed_phones(), self._wanted)
        return self

    def __exit__(self, *_: object) -> None:
        """There is nothing to close: every session cleans up by itself."""

    @cached_property
    def host(self) -> Host:
        """Return what the phone says of itself."""
        properties = (
            "ro.product.manufacturer",
            "ro.product.model",
            "ro.build.version.release",
            "ro.product.cpu.abi",
            "ro.soc.model",
        )
        told = self._shell("; ".join(f"getprop {name}" for name in properties)).splitlines()
        maker, model, release, abi, chip = (told + [""] * len(properties))[: len(properties)]
        machine = self._shell("uname -m; nproc").split()
        _, features = parse_cpuinfo(self._shell("cat /proc/cpuinfo"))
        return Host(
            architecture=machine[0],
            model=" ".join(filter(None, (maker, model, chip))),
            cores=int(machine[1]),
            features=features,
            place=self.uri,
            os=f"Android {release} ({abi})",
            runtimes={
                kind.program: None if runner is None else str(runner.path)
                for kind, runner in find_runners(self._given, self._folder).items()
            },
            conditions=self._conditions(),
        )

    def converse(self, request: Request) -> Iterator[Message]:
        """Run one session; yield "loading", "progress", and the "result" as the last.

        Raises:
            UsageError: there is no runner for an artifact.
            RuntimeFailedError: adb, the phone or a runner failed. The folder over there is gone,
                unless the phone is.
        """
        if request.task not in ("bench", "outputs"):
            raise UsageError(
                f"{self.uri} runs artifacts with native programs, which do not tell of operators.",
                remedy="Profile on this machine, or on an ARM board over ssh.",
            )
        if request.duration_s is not None:
            raise UsageError("Native runners count inferences: use --runs, not --duration.")
        runners = runners_for(request.artifacts, self._given, self._folder)
        there = f"{PLACE}/mobiledeploy-{secrets.token_hex(4)}"
        self._shell(f"mkdir {there}")
        try:
            self._push(request, runners, there)
            yield from (
                self._bench(request, runners, there)
                if request.task == "bench"
                else (self._outputs_only(request, runners, there))
            )
        finally:
            self._remove(there)

    def _push(self, request: Request, runners: Mapping[str, NativeRunner], there: str) -> None:
        """Send artifacts, inputs and runners; compare their sha256 over there."""
        with tempfile.TemporaryDirectory() as scratch:
            local = {}
            for name, data in files_of(request).items():
                local[name] = Path(scratch, name)
                local[name].parent.mkdir(exist_ok=True)
                local[name].write_bytes(data)
            for place, samples in enumerate(request.inputs):
                for index, sample in enumerate(() if samples is None else samples):
                    name = _input_name(place, index)
                    local[name] = Path(scratch, name)
                    local[name].write_bytes(sample.astype("<f4").tobytes())
            local |= {runner.path.name: runner.path for runner in runners.values()}
            folders = sorted({str(Path(name).parent) for name in local} - {"."})
            self._shell(f"cd {there} && mkdir -p {' '.join(folders)}")
            for name, path in local.items():
                self._adb("push", str(path), f"{there}/{name}")
            names = " ".join(shlex.quote(name) for name in local)
            said = self._shell(f"cd {there} && sha256sum {names}")
            digests = [line.split()[0].lstrip("\\") for line in said.splitlines()]
            for (name, path), found in zip(local.items(), digests, strict=True):
                if found != sha256_of(path):
                    raise RuntimeFailedError(
                        f"{name} arrived damaged on {self.uri}: its sha256 is {found[:12]}...",
                        remedy="Run the command again; if it happens again, try another cable.",
                    )
        programs = " ".join(shlex.quote(runner.path.name) for runner in runners.values())
        self._shell(f"cd {there} && chmod 755 {programs}")

    def _bench(
        self, request: Request, runners: Mapping[str, NativeRunner], there: str
    ) -> Iterator[Message]:
        """Time the artifacts in blocks, each block in an order of its own."""
        order = random.Random(request.seed)  # noqa: S311 - an order, not a secret
        places = range(len(request.artifacts))
        timings: dict[int, list[Timing]] = defaultdict(list)
        yield {"loading": str(request.artifacts[0])}
        before = self._conditions()
        blocks = _blocks(request)
        for block, runs in enumerate(blocks, 1):
            turns = order.sample(places, len(places))
            if block == 1:
                turns.sort(key=bool)  # the first artifact of a session is the first to be loaded
            for place in turns:
                timings[place].append(self._time(request, runners, there, place, runs))
            yield {"progress": block / len(blocks)}
        after = self._conditions()
        first = timings[0][0]
        runner = runners[request.artifacts[0].suffix]
        yield {
            "result": {
                "fresh": {
                    "runtime": runner.runtime,
                    "load_ms": first.load_ms,
                    "first_ms": first.first_ms,
                    "peak_memory_bytes": None,
                },
                "times_ms": [
                    [ms for timing in timings[place] for ms in timing.times_ms] for place in places
                ],
                "conditions": {"before": before, "after": after},
                "outputs": self._outputs(request, runners, there),
            }
        }

    def _time(
        self,
        request: Request,
        runners: Mapping[str, NativeRunner],
        there: str,
        place: int,
        runs: int,
    ) -> Timing:
        path = request.artifacts[place]
        runner = runners[path.suffix]
        argv = runner.timing_command(
            f"./{runner.path.name}",
            f"{place}/{path.name}",
            threads=request.threads,
            runs=request.warmup + runs,
        )
        result = f"; r=$?; cat {RESULT_FILE} 2>/dev/null; rm -f {RESULT_FILE}; exit $r"
        said = self._shell(f"cd {there} && {_command(request, argv)}{result}")
        return runner.timing(said, warmup=request.warmup, runs=runs)

    def _outputs_only(
        self, request: Request, runners: Mapping[str, NativeRunner], there: str
    ) -> Iterator[Message]:
        for path in request.artifacts:
            if not runners[path.suffix].gives_outputs:
                raise UsageError(
                    f"{path}: {runners[path.suffix].program} keeps its outputs to itself: they "
                    "cannot be compared.",
                    remedy="Compare the .pte of the same network; both hold the same integers.",
                )
        if any(samples is None for samples in request.inputs):
            raise UsageError("A phone makes no inputs: outputs need inputs to be sent.")
        yield {"result": {"outputs": self._outputs(request, runners, there)}}

    def _outputs(
        self, request: Request, runners: Mapping[str, NativeRunner], there: str
    ) -> list[str | None]:
        """Run every sample that was sent; return what came out, as the text of `.npy` files."""
        encoded: list[str | None] = []
        for place, (path, samples) in enumerate(
            zip(request.artifacts, request.inputs, strict=True)
        ):
            runner = runners[path.suffix]
            if samples is None or not isinstance(runner, ExecutorRunner):
                encoded.append(None)
                continue
            rows = []
            for index in range(len(samples)):
                argv = runner.outputs_command(
                    f"./{runner.path.name}",
                    f"{place}/{path.name}",
                    threads=request.threads,
                    inputs=_input_name(place, index),
                    outputs="output",
                )
                self._shell(f"cd {there} && {_command(request, argv)}")
                rows.append(self._pull(f"{there}/output-0.bin"))
            encoded.append(base64.b64encode(as_npy(np.stack(rows))).decode())
        return encoded

    def _remove(self, there: str) -> None:
        """Remove a folder over there, and end what still runs in it.

        A phone whose connection broke gets time to come back.
        """
        with contextlib.suppress(RuntimeFailedError):  # it is gone for good: the error says so
            self._adb("wait-for-device", timeout_s=QUICK_S)
            self._shell(_KILL_AND_REMOVE.format(there=there), timeout_s=QUICK_S)

    def _pull(self, path: str) -> Any:
        """Return the float32 values of a file over there, which is removed."""
        with tempfile.TemporaryDirectory() as scratch:
            target = Path(scratch, "output")
            self._adb("pull", path, str(target))
            values = np.fromfile(target, "<f4")
        self._shell(f"rm {path}")
        return values

    def _conditions(self) -> dict[str, Any]:
        """Copy the files that speed can be read from, and read them as everywhere."""
        said = self._shell(
            f'for f in {_SYS_FILES}; do [ -r "$f" ] && echo "$f" $(cat "$f"); done; true'
        )
        with tempfile.TemporaryDirectory() as scratch:
            for line in said.splitlines():
                name, _, text = line.partition(" ")
                if name.startswith("/sys/"):
                    copy = Path(scratch, name.lstrip("/"))
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    copy.write_text(text)
            return conditions(f"{scratch}/sys")

    def _shell(self, command: str, *, timeout_s: float | None = None) -> str:
        """Run a command over there and return what it says.

        adb ends with 0 also where the connection broke: the command's own end has to be seen.

        Raises:
            RuntimeFailedError: it failed, or its end did not arrive.
        """
        whole = self._adb("shell", f"( {command}\n); echo {_END}$?", timeout_s=timeout_s)
        said, end, code = whole.rpartition(_END)
        if not end:
            raise RuntimeFailedError(
                f"The connection to {self.uri} broke. The last that it said:\n{tail(whole)}",
                remedy="Check the cable, and whether `adb devices` still lists it.",
            )
        if int(code):
            raise RuntimeFailedError(
                f"`{command[:200]}` on {self.uri} ended with code {int(code)}. It said:\n"
                f"{tail(said)}",
                remedy="See what the program says; an artifact may need a newer one.",
            )
        return said

    def _adb(self, *arguments: str, timeout_s: float | None = None) -> str:
        return run_adb(["-s", self._serial, *arguments], timeout_s=timeout_s or self._timeout_s)


def _blocks(request: Request) -> list[int]:
    """Return how many runs that count each block has."""
    full, rest = divmod(request.rounds, _BLOCK)
    return [_BLOCK] * full + ([rest] if rest else [])


def _command(request: Request, argv: list[str]) -> str:
    """Return a command for the phone's shell, bound to cores where that was asked for."""
    mask = sum(1 << core for core in request.affinity)
    bound = ["taskset", f"{mask:x}"] if mask else []
    return shlex.join([*bound, *argv]) + " 2>&1"


def _input_name(place: int, index: int) -> str:
    return f"{place}/input{index}.bin"
