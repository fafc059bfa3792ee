"""Start the agent, send it a request, and follow what it says; this side of the pipe.

In: the command that starts a Python over there, and a `Request`. Out: the agent's messages.
Whatever happens, the process is gone when the iterator ends; it is given the time to clean up.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import signal
import subprocess
import tempfile
import threading
from typing import IO, TYPE_CHECKING, Any, Protocol, Self, cast

from mobiledeploy import errors
from mobiledeploy.devices.agent import bundle
from mobiledeploy.devices.agent.machine import PROTOCOL
from mobiledeploy.devices.request import Request, files_of, from_npy, inputs_name, operator_name
from mobiledeploy.errors import MobileDeployError, RuntimeFailedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mobiledeploy.devices.request import Message

    class Explain(Protocol):
        """Turns exit code and output of a command into an error, or None."""

        def __call__(self, code: int, said: str, *, greeted: bool) -> MobileDeployError | None:
            """Explain."""


GRACE_S = 10.0
_LAST_WORDS = 5
_RECORD = "\x1e"


def converse(
    argv: Sequence[str],
    request: Request | None,
    *,
    place: str,
    timeout_s: float,
    explain: Explain,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Message]:
    """Run one session; yield its messages, "hello" first and "result" last.

    Args:
        argv: Starts a Python over there that runs `agent.BOOTSTRAP`.
        request: What to do; None: only to say hello.
        place: What errors call the device.
        timeout_s: How long the task may take over there, and how long we wait for a word.
        explain: Turns the command's exit code and output into an error, where it knows what they
            mean; "greeted" tells whether the agent said hello before.
        environment: Variables for the command, added to ours.

    Raises:
        RuntimeFailedError: the device cannot be reached, or the session crashed, hung, or ended
            without a result.
        MobileDeployError: whatever the agent reports, in its own class.
    """
    files = {} if request is None else files_of(request)
    story = Conversation(place)
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log,
        _start(argv, log, environment or {}) as process,
        _Watchdog(process, timeout_s + GRACE_S) as watchdog,
    ):
        try:
            _in_background(process, request, files, timeout_s)
            for message in _messages(process, log):
                watchdog.reset()
                story.hear(message)
                yield message
                if "result" in message or (request is None and "hello" in message):
                    return
            code = process.wait()
        finally:
            _end(process)
        if watchdog.barked:
            raise story.unanswered(f"said nothing for {timeout_s:g} s and was stopped", _tail(log))
        error = None if story.death else explain(code, _read(log), greeted=story.greeted)
        raise error or story.unanswered(story.death or _how(code), _tail(log))


def arrays_of(message: Message, key: str = "outputs") -> list[Any]:
    """Return the arrays of a result, by artifact; None where there is none."""
    return [
        None if text is None else from_npy(base64.b64decode(text))
        for text in message["result"][key]
    ]


class Conversation:
    """What was heard so far: what an error has to tell."""

    def __init__(self, place: str) -> None:
        self.greeted = False
        self.death = ""
        self._place = place
        self._loaded = ""

    def hear(self, message: Message) -> None:
        """Take note of a message.

        Raises:
            MobileDeployError: it is an error, or the other side speaks another version.
        """
        if "hello" in message:
            self.greeted = True
            found = message["hello"]["protocol"]
            if found != PROTOCOL:
                raise RuntimeFailedError(
                    f"{self._place} speaks version {found} of the protocol; expected {PROTOCOL}."
                )
        self._loaded = message.get("loading", self._loaded)
        if "error" in message:
            error = message["error"]
            kind: type[MobileDeployError] = getattr(errors, error["type"])
            raise kind(error["message"], remedy=error["remedy"])
        if "died" in message:
            self.death = message["died"]["how"]

    def unanswered(self, how: str, words: str) -> RuntimeFailedError:
        """Return an error for a session that ended without a result."""
        loaded = self._loaded or "nothing yet"
        return RuntimeFailedError(
            f"The process that ran the artifacts ({self._place}) {how}; the last that it had begun "
            f"to load was {loaded}." + (f" Its last words:\n{words}" if words else ""),
            remedy="The artifact may be damaged: export it again, or hold its sha256 against the "
            "one in its manifest. A device may have lost power or connection: try again.",
        )


def _start(
    argv: Sequence[str], log: IO[str], environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a command in a process group of its own, which Ctrl-C does not reach and a kill does.

    Raises:
        RuntimeFailedError: there is no such command, or it cannot be run.
    """
    try:
        return subprocess.Popen(  # noqa: S603 - an argv, no shell
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, **environment},
            process_group=0,
        )
    except OSError as error:
        raise RuntimeFailedError(
            f"{argv[0]} cannot be run: {error.strerror}.",
            remedy="Install it, or check how it is spelt.",
        ) from error


def _in_background(
    process: subprocess.Popen[bytes],
    request: Request | None,
    files: Mapping[str, bytes],
    timeout_s: float,
) -> None:
    """Send everything while somebody else reads: neither side waits for the other for ever."""
    pipe = _raw_stdin(process)
    source = bundle()
    parts = [b"%d\n" % len(source), source]
    if request is not None:
        parts += [json.dumps(_header(request, files, timeout_s)).encode() + b"\n"]
        parts += files.values()

    def send() -> None:
        with contextlib.suppress(OSError, ValueError):  # it died or was stopped: see its end
            for part in parts:
                _write(pipe, part)

    threading.Thread(target=send, daemon=True).start()


def _raw_stdin(process: subprocess.Popen[bytes]) -> io.FileIO:
    """Return the pipe without its buffer, which could not be closed while a write is stuck."""
    return cast("io.FileIO", cast("io.BufferedWriter", process.stdin).raw)


def _write(pipe: io.FileIO, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[pipe.write(left) :]


def _header(request: Request, files: Mapping[str, bytes], timeout_s: float) -> dict[str, object]:
    return {
        "task": request.task,
        "artifacts": [
            {
                "file": f"{place}/{path.name}",
                "label": str(path),
                "inputs": None if samples is None else inputs_name(place),
            }
            for place, (path, samples) in enumerate(
                zip(request.artifacts, request.inputs, strict=True)
            )
        ],
        "threads": request.threads,
        "affinity": request.affinity,
        "rounds": request.rounds,
        "warmup": request.warmup,
        "seed": request.seed,
        "duration_s": request.duration_s,
        "operators": [
            {"file": operator_name(place), "label": operator.label, "inputs": operator.inputs}
            for place, operator in enumerate(request.operators)
        ],
        "limit_s": timeout_s,
        "files": [
            {"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in files.items()
        ],
    }


def _messages(process: subprocess.Popen[bytes], log: IO[str]) -> Iterator[Message]:
    """Yield what the agent says; write down what others print on the way (banners, libraries)."""
    assert process.stdout is not None
    for line in process.stdout:
        noise, mark, record = line.decode(errors="replace").partition(_RECORD)
        if noise.strip():
            log.write(noise if noise.endswith("\n") else noise + "\n")
        if mark and record.endswith("\n"):  # else the connection was cut in the middle of it
            yield json.loads(record)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Close the pipe, which is the order to clean up; then make sure that the process is gone."""
    _raw_stdin(process).close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_S)
    with contextlib.suppress(OSError):  # nobody is left
        os.killpg(process.pid, signal.SIGKILL)


class _Watchdog:
    """Ends a process that says nothing for too long."""

    def __init__(self, process: subprocess.Popen[bytes], silence_s: float) -> None:
        self.barked = False
        self._process = process
        self._silence_s = silence_s
        self._timer = self._start()

    def reset(self) -> None:
        """Begin to wait anew."""
        self._timer.cancel()
        self._timer = self._start()

    def _start(self) -> threading.Timer:
        timer = threading.Timer(self._silence_s, self._bark)
        timer.daemon = True
        timer.start()
        return timer

    def _bark(self) -> None:
        self.barked = True
        _end(self._process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()


def _how(code: int) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with code {code}"


def _read(log: IO[str]) -> str:
    log.seek(0)
    return log.read()


def _tail(log: IO[str]) -> str:
    return "\n".join(_read(log).strip().splitlines()[-_LAST_WORDS:])
