"""Run a session of `mobiledeploy.bench.child` and follow what it says."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import threading
from typing import TYPE_CHECKING, Any, Self

from mobiledeploy import errors
from mobiledeploy.errors import MobileDeployError, RuntimeFailedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_COMMAND = (sys.executable, "-m", "mobiledeploy.bench.child")
_SILENCE_S = 300.0
_STDERR_LINES = 5


def converse(
    request: Mapping[str, object], *, silence_s: float = _SILENCE_S
) -> Iterator[dict[str, Any]]:
    """Start a child, send it the request, and yield its messages; the last one is the result.

    The child is gone when the iterator ends, for whatever reason.

    Args:
        request: As `child` documents it.
        silence_s: How long it may say nothing before it is killed.

    Raises:
        RuntimeFailedError: the child crashed, hung, or ended without a result.
        MobileDeployError: whatever the child reports, in its own class.
    """
    last_loaded = "nothing yet"
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log,
        subprocess.Popen(  # noqa: S603 - a constant argv
            _COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            encoding="utf-8",
        ) as child,
        _Watchdog(child, silence_s) as watchdog,
    ):
        try:
            for message in _messages(child, request):
                watchdog.reset()
                last_loaded = message.get("loading", last_loaded)
                if "error" in message:
                    raise _reported(message["error"])
                yield message
                if "result" in message:
                    return
            code = child.wait()
        finally:
            child.kill()
        how = f"said nothing for {silence_s:g} s and was stopped" if watchdog.barked else _end(code)
        log.seek(0)
        raise _unanswered(how, last_loaded, log.read())


def _messages(
    child: subprocess.Popen[str], request: Mapping[str, object]
) -> Iterator[dict[str, Any]]:
    """Send the request, yield the messages that come back until the child closes its end."""
    assert child.stdin is not None
    assert child.stdout is not None
    with contextlib.suppress(BrokenPipeError), child.stdin as requests:  # it died: see its code
        json.dump(request, requests)
    for line in child.stdout:
        yield json.loads(line)


class _Watchdog:
    """Kills a child that says nothing for too long."""

    def __init__(self, child: subprocess.Popen[str], silence_s: float) -> None:
        self.barked = False
        self._child = child
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
        self._child.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()


def _reported(error: Mapping[str, str]) -> MobileDeployError:
    """Return the error that the child raised."""
    kind: type[MobileDeployError] = getattr(errors, error["type"])
    return kind(error["message"], remedy=error["remedy"])


def _end(code: int) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with code {code}"


def _unanswered(how: str, last_loaded: str, log: str) -> RuntimeFailedError:
    """Return an error for a child that ended without a result."""
    tail = "\n".join(log.strip().splitlines()[-_STDERR_LINES:])
    return RuntimeFailedError(
        f"The process that ran the artifacts {how}; the last that it had begun to load was "
        f"{last_loaded}." + (f" Its last words:\n{tail}" if tail else ""),
        remedy="The artifact may be damaged: export it again, or hold its sha256 against the one "
        "in its manifest.",
    )
