"""Start the agent on a device, send it a request, and receive its messages.

The process that was started is gone when the iterator ends, for whatever reason; before it is
killed it gets `GRACE_S` seconds to clean up.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import signal
import subprocess
import tempfile
import threading
from typing import IO, TYPE_CHECKING, Protocol, Self, cast

from mobiledeploy import errors
from mobiledeploy.devices.agent import bundle
from mobiledeploy.devices.agent.machine import PROTOCOL
from mobiledeploy.devices.command_output import last_output
from mobiledeploy.devices.replies import malformed
from mobiledeploy.devices.request import Request, from_npy, request_files, request_message
from mobiledeploy.errors import MobileDeployError, RuntimeFailedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mobiledeploy.devices.request import Message, Outputs, Samples

    class ExplainExit(Protocol):
        """Turns the exit code and output of a command into an error; None if they are unknown."""

        def __call__(self, code: int, output: str, *, started: bool) -> MobileDeployError | None:
            """Explain; `started` says whether the agent had started."""


GRACE_S = 10.0
_RECORD = "\x1e"


def run_session(
    argv: Sequence[str],
    request: Request | None,
    *,
    uri: str,
    timeout_s: float,
    explain_exit: ExplainExit,
    environment: Mapping[str, str] | None = None,
    is_native: bool = False,
) -> Iterator[Message]:
    """Run one session; yield its messages, "hello" first and "result" last.

    Args:
        argv: Starts a Python on the device that runs `agent.BOOTSTRAP`, or the native runner.
        request: What to do; None to receive "hello" only.
        uri: The device's name in errors.
        timeout_s: How long the task may take, and how long the session may send nothing.
        explain_exit: Turns the command's exit code and output into an error, where it knows them.
        environment: Variables for the command, added to this process's.
        is_native: Whether the command starts the native runner, which needs no agent.

    Raises:
        RuntimeFailedError: The device cannot be reached, or the session crashed, hung, or ended
            without a result.
        MobileDeployError: An error that the agent reported, in its own class.
    """
    files = {} if request is None else request_files(request)
    progress = SessionProgress(uri)
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log,
        _start(argv, log, environment or {}) as process,
        _Watchdog(process, timeout_s + GRACE_S) as watchdog,
    ):
        try:
            _send_in_background(process, _parts(request, files, timeout_s, is_native=is_native))
            for message in _messages(process, log, uri):
                watchdog.reset()
                progress.update(message)
                yield message
                if "result" in message or (request is None and "hello" in message):
                    return
            code = process.wait()
        finally:
            _end(process)
        output = _read(log)
        if watchdog.expired:
            raise progress.failure(f"sent nothing for {timeout_s:g} s and was stopped", output)
        known = None if progress.death else explain_exit(code, output, started=progress.started)
        raise known or progress.failure(progress.death or _describe_exit(code), output)


def decode_inputs(encoded: Sequence[str | None]) -> list[Samples]:
    """Return the arrays of a result's `inputs`, without those that are None."""
    return [from_npy(base64.b64decode(text)) for text in encoded if text is not None]


def decode_outputs(encoded: Sequence[Sequence[str] | None]) -> list[Outputs]:
    """Return the arrays of a result's `outputs`, without the artifacts that have None."""
    return [tuple(decode_inputs(texts)) for texts in encoded if texts is not None]


class SessionProgress:
    """How far a session has come: what an error about it has to say."""

    def __init__(self, uri: str) -> None:
        self.started = False
        self.death = ""
        self._uri = uri
        self._loading = ""

    def update(self, message: Message) -> None:
        """Take in a message.

        Raises:
            MobileDeployError: It is an error or malformed, or of another protocol version.
        """
        try:
            self._update(message)
        except (KeyError, TypeError, AttributeError) as error:
            raise malformed(self._uri, f"{error!r} in {str(message)[:80]}") from error

    def _update(self, message: Message) -> None:
        if "hello" in message:
            self.started = True
            found = message["hello"]["protocol"]
            if found != PROTOCOL:
                raise RuntimeFailedError(
                    f"{self._uri} has protocol version {found}; expected {PROTOCOL}.",
                    remedy="Run mobiledeploy from one installation only.",
                )
        self._loading = message.get("loading", self._loading)
        if "error" in message:
            error = message["error"]
            raise _class_of(error["type"])(error["message"], remedy=error["remedy"])
        if "died" in message:
            self.death = message["died"]["how"]

    def failure(self, how: str, output: str) -> RuntimeFailedError:
        """Return an error for a session that ended without a result."""
        return RuntimeFailedError(
            f"The process that runs the artifacts on {self._uri} {how}. The last artifact that it "
            f"began to load is {self._loading or 'none'}.{last_output(output)}",
            remedy="The artifact may be damaged: compare its sha256 with the one in its manifest, "
            "or export it again. The device may have lost power or its connection: try again.",
        )


def _class_of(name: str) -> type[MobileDeployError]:
    """Return the class of `mobiledeploy.errors` with this name.

    Raises:
        KeyError: There is none.
    """
    found = vars(errors)[name]
    if not (isinstance(found, type) and issubclass(found, MobileDeployError)):
        raise KeyError(name)
    return found


def _start(
    argv: Sequence[str], log: IO[str], environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a command in a process group of its own, so that Ctrl-C does not reach it.

    Raises:
        RuntimeFailedError: The command does not exist or cannot be run.
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
            remedy="Install it, or check its spelling.",
        ) from error


def _parts(
    request: Request | None, files: Mapping[str, bytes], timeout_s: float, *, is_native: bool
) -> list[bytes]:
    """Return what is sent: the agent, unless the runner is native; the request; its files."""
    parts = []
    if not is_native:
        source = bundle()
        parts = [b"%d\n" % len(source), source]
    if request is not None:
        header = request_message(request, files, limit_s=timeout_s)
        parts += [json.dumps(header).encode() + b"\n", *files.values()]
    return parts


def _send_in_background(process: subprocess.Popen[bytes], parts: Sequence[bytes]) -> None:
    """Send from a thread, so that neither side blocks the other."""
    pipe = _raw_stdin(process)

    def send() -> None:
        with contextlib.suppress(OSError, ValueError):  # it has ended: its exit code is reported
            for part in parts:
                _write(pipe, part)

    threading.Thread(target=send, daemon=True).start()


def _raw_stdin(process: subprocess.Popen[bytes]) -> io.FileIO:
    """Return the pipe without its buffer, which cannot be closed while a write blocks."""
    return cast("io.FileIO", cast("io.BufferedWriter", process.stdin).raw)


def _write(pipe: io.FileIO, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[pipe.write(left) :]


def _messages(process: subprocess.Popen[bytes], log: IO[str], uri: str) -> Iterator[Message]:
    """Yield the agent's messages; write what others print (banners, libraries) to the log.

    Raises:
        RuntimeFailedError: A record is not JSON.
    """
    assert process.stdout is not None
    for line in process.stdout:
        other, mark, record = line.decode(errors="replace").partition(_RECORD)
        if other.strip():
            log.write(other if other.endswith("\n") else other + "\n")
        if mark and record.endswith("\n"):  # a record without its end was cut off
            try:
                message = json.loads(record)
            except (ValueError, RecursionError) as error:
                raise malformed(uri, f"{error} in {record[:80]!r}") from error
            yield message


def _end(process: subprocess.Popen[bytes]) -> None:
    """Close the pipe, which tells the agent to clean up; kill the process group after `GRACE_S`."""
    _raw_stdin(process).close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_S)
    with contextlib.suppress(OSError):  # the group is gone already
        os.killpg(process.pid, signal.SIGKILL)


class _Watchdog:
    """Ends a process that sends nothing for too long."""

    def __init__(self, process: subprocess.Popen[bytes], silence_s: float) -> None:
        self.expired = False
        self._process = process
        self._silence_s = silence_s
        self._timer = self._start()

    def reset(self) -> None:
        """Start the time again."""
        self._timer.cancel()
        self._timer = self._start()

    def _start(self) -> threading.Timer:
        timer = threading.Timer(self._silence_s, self._expire)
        timer.daemon = True
        timer.start()
        return timer

    def _expire(self) -> None:
        self.expired = True
        _end(self._process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()


def _describe_exit(code: int) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with code {code}"


def _read(log: IO[str]) -> str:
    log.seek(0)
    return log.read()
