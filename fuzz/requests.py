"""Hostile requests for the Python agent and the native runner, and what they must answer.

The same seed makes the same requests. A request holds a real, small network, so that what is
accepted also runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import select
import signal
import subprocess
import threading
import time
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from fuzz.mutate import change_values, mutate_bytes, places
from mobiledeploy import errors
from mobiledeploy.devices.request import Request, request_files, request_message

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from random import Random

    from mobiledeploy.devices.request import Task

SEEDS = Path(__file__).with_name("seeds")
PATIENCE_S = 30.0  # for the whole answer, on a busy machine
RESIDENT_BYTES = 768 << 20
ADDRESS_BYTES = 6 << 30  # each runtime maps its libraries, and a stack and a heap per thread

_VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 2**31, 2**32, 2**63, -(2**63), 2**64, 10**400, 0.5, -0.0, 1e308),
    *(float("nan"), float("inf"), "", "1", "\0", "x" * 70_000, [], [[]], [-1], {}, {"": 0}),
)
_NAMES = (
    *("", ".", "..", "/", "0", "0/", "0//x", "0/.", "./0", "../x", "0/../../x", "0/\0.onnx"),
    *("/proc", "../../fifo", "../../folder", "../../missing", "n" * 300, "a/" * 3000, "\ud800"),
)
_MARKS = ("Traceback", "terminate called", "runtime error:", "Sanitizer")


@dataclass(frozen=True, slots=True)
class Case:
    """What is written to stdin.

    Attributes:
        name: Names the case in failures.
        writes: The parts, written one after another.
        is_cut: Whether stdin ends after them; else it stays open while the other side may answer.
    """

    name: str
    writes: tuple[bytes, ...]
    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """How a process ended.

    Attributes:
        code: Its exit code; negative for a signal, also if it had to be killed.
        sent: What it wrote to stdout.
        log: What it printed to stderr.
        took_s: Seconds.
        peak_bytes: The most resident memory of the process and its children; 0 if this process,
            from which it was forked, needed more.
        left: Files and processes that remain.
    """

    code: int
    sent: bytes
    log: str
    took_s: float
    peak_bytes: int
    left: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Seed:
    """A valid request: its JSON, and the bytes of its files."""

    message: dict[str, Any]
    files: dict[str, bytes]

    def line(self, message: object = None) -> bytes:
        """Return the line of this request, or of another one."""
        return json.dumps(self.message if message is None else message).encode() + b"\n"

    @property
    def content(self) -> bytes:
        """Return the bytes of all files."""
        return b"".join(self.files.values())


def seed_of(task: Task, *suffixes: str, sends_inputs: bool = False, limit_s: float = 2.0) -> Seed:
    """Return a short request for the networks of the seeds with these suffixes."""
    artifacts = tuple(SEEDS / f"tiny{suffix}" for suffix in suffixes)
    images = np.zeros((2, 3, 32, 32), np.float32) if sends_inputs else None
    request = Request(
        task=task, artifacts=artifacts, inputs=(images,) * len(artifacts), rounds=2, warmup=1
    )
    files = request_files(request)
    return Seed({**request_message(request, files, limit_s=limit_s)}, files)


def byte_cases(seed: Seed) -> Iterator[Case]:
    """Yield damaged bytes: cut, joined and split requests, other encodings, endless lines."""
    line, content = seed.line(), seed.content
    yield Case("empty", (), is_cut=True)
    yield Case("blank line", (b"\n",), is_cut=True)
    yield Case("no files", (line,), is_cut=True)
    yield Case("half the files", (line, content[: len(content) // 2]), is_cut=True)
    yield Case("all but the last byte", (line, content[:-1]), is_cut=True)
    yield Case("other files", (line, bytes(len(content))))
    yield Case("more bytes", (line, content + b"more"))
    yield Case("two requests", (line + content + line + content,))
    yield Case("two requests in one line", (line[:-1] + line, content))
    yield Case("split", tuple((line + content)[at : at + 997] for at in range(0, 20_000, 997)))
    yield Case("byte order mark", (b"\xef\xbb\xbf" + line, content))
    yield Case("invalid UTF-8", (line.replace(b"tiny", b"\xff\xfe\xc0", 1), content))
    yield Case("UTF-16", (line.decode().encode("utf-16"), content))
    yield Case("zeros", (bytes(5000) + b"\n",))
    yield Case("deep lists", (b"[" * 1_000_000 + b"\n",))
    yield Case("deep objects", (b'{"a":' * 200_000 + b"\n",))
    yield Case("an endless line", (b'{"task": "' + b"x" * (16 << 20),))
    yield Case("an endless number", (line.replace(b'"threads": 1', b'"threads": ' + b"9" * 10**6),))
    for deep in (b"[" * 900 + b"]" * 900, b"[" * 300_000 + b"]" * 300_000):
        yield Case("deep value", (line.replace(b'"threads": 1', b'"threads": ' + deep), content))


def cut_cases(seed: Seed, step: int = 1) -> Iterator[Case]:
    """Yield the request cut after every `step` bytes of its line."""
    line = seed.line()
    for size in range(1, len(line), step):
        yield Case(f"{size} bytes", (line[:size],), is_cut=True)


def value_cases(seed: Seed) -> Iterator[Case]:
    """Yield the request with one wrong value, one missing key, or one unknown key."""
    number = len(list(places(seed.message)))
    for index in range(number):
        for value in _VALUES:
            yield _changed(seed, index, value)
        message = deepcopy(seed.message)
        holder, key = list(places(message))[index]
        del holder[key]
        yield Case(f"no {key}", (seed.line(message), seed.content))
    yield Case("unknown key", (seed.line(seed.message | {"protocol": 4}), seed.content))


def name_cases(seed: Seed) -> Iterator[Case]:
    """Yield the request with strange names of files: folders, FIFOs, missing and foreign ones."""
    for index, (_, key) in enumerate(places(seed.message)):
        if key in {"name", "file", "inputs"}:
            yield from (_changed(seed, index, name) for name in _NAMES)
    for name in _NAMES:  # the name of the file that is sent, and of the one that is loaded
        message = deepcopy(seed.message)
        message["files"][0]["name"] = message["artifacts"][0]["file"] = name
        yield Case(f"all names {name[:20]!r}", (seed.line(message), seed.content))


def file_cases(seed: Seed, number: int, name: str, random: Random) -> Iterator[Case]:
    """Yield the request with mutations of one file, whose sha256 is right."""
    for index in range(number):
        yield with_file(seed, name, mutate_bytes(seed.files[name], random), f"{name} {index}")


def with_file(seed: Seed, name: str, data: bytes, title: str) -> Case:
    """Return the request with another file."""
    message, files = deepcopy(seed.message), seed.files | {name: data}
    entries = Seed(message, files)
    for entry in message["files"]:
        entry["size"], entry["sha256"] = len(files[entry["name"]]), _sha256(files[entry["name"]])
    return Case(title, (entries.line(), entries.content))


def random_cases(seed: Seed, number: int, random: Random) -> Iterator[Case]:
    """Yield random mutations of the values or of the bytes of a request."""
    for index in range(number):
        if random.random() < 0.3:
            line = mutate_bytes(seed.line(), random)
        else:
            line = seed.line(change_values(deepcopy(seed.message), random))
        yield Case(f"random {index}", (line, seed.content), is_cut=random.random() < 0.2)


def _changed(seed: Seed, index: int, value: Any) -> Case:
    """Return the request with another value at the place with this index."""
    message = deepcopy(seed.message)
    holder, key = list(places(message))[index]
    holder[key] = value
    shown = f"{len(value)} characters" if isinstance(value, str) and len(value) > 40 else value
    return Case(f"{index} {key} = {shown!r:.60}", (seed.line(message), seed.content))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def answer(argv: Sequence[str], case: Case, folder: Path, *, idle_s: float = 1.0) -> Answer:
    """Start a process, write a case to it, and return how it ended.

    Args:
        argv: Starts the agent or the native runner.
        case: What is written.
        folder: The files of the session go into a folder inside it, beside a FIFO and another
            folder, which names may lead to.
        idle_s: How long stdin stays open after the last write.
    """
    temporary = _prepare(folder)
    began = time.monotonic()
    ended = threading.Event()
    with (folder / "log").open("w+b") as log:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=os.environ | {"TMPDIR": str(temporary)},
            start_new_session=True,
            bufsize=0,
        )
        with contextlib.suppress(ProcessLookupError):  # it has ended
            resource.prlimit(process.pid, resource.RLIMIT_AS, (ADDRESS_BYTES, ADDRESS_BYTES))
            resource.prlimit(process.pid, resource.RLIMIT_CORE, (0, 0))
        assert process.stdin
        assert process.stdout
        wait_s = 0.0 if case.is_cut else idle_s
        writer = threading.Thread(target=_write, args=(process.stdin, case, ended, wait_s))
        writer.start()
        sent = _read_until_end(process.stdout.fileno(), began + PATIENCE_S)
        if sent is None:
            os.killpg(process.pid, signal.SIGKILL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        ended.set()
        writer.join()
        process.stdout.close()
        log.seek(0)
        text = log.read().decode(errors="replace")
    return Answer(
        code=-signal.SIGKILL if sent is None else process.returncode,
        sent=sent or b"",
        log=text,
        took_s=time.monotonic() - began,
        peak_bytes=usage.ru_maxrss * 1024 if usage.ru_maxrss > own else 0,
        left=(*_running(process.pid), *(str(path) for path in temporary.rglob("*"))),
    )


def _prepare(folder: Path) -> Path:
    """Make the folder for temporary files, and what names lead to; return it."""
    temporary = folder / "tmp"
    if not temporary.exists():
        temporary.mkdir()
        (folder / "folder").mkdir()
        os.mkfifo(folder / "fifo")
    return temporary


def _write(stdin: IO[bytes], case: Case, ended: threading.Event, wait_s: float) -> None:
    """Write all parts, then close stdin when the process has ended or after `wait_s`."""
    with contextlib.suppress(OSError):  # it may have ended
        for part in case.writes:
            left = memoryview(part)
            while left:
                left = left[stdin.write(left) :]
        ended.wait(wait_s)
    stdin.close()


def _read_until_end(pipe: int, until: float) -> bytes | None:
    """Return what is sent until all writers have ended; None if that takes too long."""
    sent = b""
    while select.select([pipe], [], [], max(0.0, until - time.monotonic()))[0]:
        part = os.read(pipe, 1 << 20)
        if not part:
            return sent
        sent += part
    return None


def _running(group: int) -> tuple[str, ...]:
    """Return a text if a process of a group still runs."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
        return ("a process",)
    return ()


def problem(case: Case, found: Answer) -> str:
    """Return what is wrong with the answer to a case; "" if nothing is.

    Right is: code 0 or 1; a result, an error, or how the task was stopped; or silence, if nothing
    was asked. Without a signal, a traceback, or anything that stays behind.
    """
    printed = [mark for mark in _MARKS if mark in found.log]
    wrong = {
        f"it ended with code {found.code}": found.code not in (0, 1),
        f"it printed {printed}": bool(printed),
        f"it left {found.left}": bool(found.left),
        f"it needed {found.peak_bytes >> 20} MiB": found.peak_bytes > RESIDENT_BYTES,
    }
    for text, is_so in wrong.items():
        if is_so:
            return text
    try:
        *_, last = _messages(found.sent)
    except ValueError as error:
        return f"it sent no JSON: {error}"
    return _problem_of_message(last, asked=any(case.writes))


def _messages(sent: bytes) -> list[dict[str, Any]]:
    """Return the records of a JSON text sequence.

    Raises:
        ValueError: It has none, or one is no JSON object.
    """
    before, *records = sent.split(b"\x1e")
    if before or not records:
        raise ValueError(f"{before[:80]!r}")
    return [json.loads(record) for record in records]


def _problem_of_message(last: dict[str, Any], *, asked: bool) -> str:
    if "died" in last:
        how = last["died"]["how"]
        known = ("was ended by SIGKILL", "took more than")  # the end of stdin, and the time limit
        return "" if how.startswith(known) else f"the task {how}"
    if "error" in last:
        name = last["error"]["type"]
        return "" if isinstance(vars(errors).get(name), type) else f"no class is named {name}"
    is_right = "result" in last or ("hello" in last and not asked)
    return "" if is_right else f"the last message is {str(last)[:80]}"
