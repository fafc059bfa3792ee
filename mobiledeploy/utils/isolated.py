"""Call a function in a new process, so that a crash of a native library is an error here.

The process is a new Python, not a fork: libraries with threads do not survive a fork. It has limits
of time and, on Linux, of memory, and writes nothing to this process's streams.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, TypeVar

from mobiledeploy.errors import ArtifactError, MobileDeployError, RuntimeFailedError
from mobiledeploy.utils.files import temporary_folder
from mobiledeploy.utils.memory import free_bytes, out_of_memory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")

LIMIT_S = 120.0
_PATIENCE = 5  # on a busy machine a process gets a part of the processors' time only
_STARTED = b"+"  # precedes the answer
_INSTALL = "Install mobiledeploy again. If its files were just being changed, try again."
_SHOWN = 200  # characters of what the process printed last
_LEAST_BYTES = 1 << 30  # what Python and a runtime take before they read an artifact, and more
_CHILD = "import sys; sys.path[:] = {!r}; from mobiledeploy.utils.isolated import main; main()"


def call_isolated(function: Callable[[Path], T], path: Path, *, limit_s: float = LIMIT_S) -> T:
    """Return what a function returns for an artifact, called in a process of its own.

    Args:
        function: A function of a module. Its result is pickled.
        path: The artifact.
        limit_s: Seconds of processor time that the process may take, and a fifth of the seconds
            until it is stopped.

    Raises:
        ArtifactError: The process crashed, took too long, or ran out of memory.
        RuntimeFailedError: The process cannot be started, or cannot import its modules.
        MobileDeployError: What the function raised.
    """
    with temporary_folder(0) as folder:  # what a crash leaves there is removed
        try:
            done = subprocess.run(  # noqa: S603 - this Python
                [sys.executable, "-P", "-c", _CHILD.format(sys.path)],  # not the current folder
                input=pickle.dumps((function, path, limit_s)),
                capture_output=True,
                env=os.environ | {"TMPDIR": str(folder)},
                timeout=_PATIENCE * limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise _unusable(path, f"took more than {_PATIENCE * limit_s:g} s") from error
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    last = f" ({lines[-1][:_SHOWN]})" if lines else ""
    if not done.stdout:
        raise RuntimeFailedError(
            f"The process that was to load {path} {_describe_exit(done.returncode)} before it"
            f" began{last}.",
            remedy=_INSTALL,
        )
    if done.returncode:
        raise _unusable(path, _describe_exit(done.returncode) + last)
    result = pickle.loads(done.stdout.removeprefix(_STARTED))  # noqa: S301 - of this program
    if isinstance(result, MobileDeployError):
        raise result
    return result  # type: ignore[no-any-return]


def main() -> None:
    """Call the function that stdin names; write its result, or its error, to stdout."""
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    answer.write(_STARTED)
    answer.flush()
    try:
        function, path, limit_s = pickle.load(sys.stdin.buffer)  # noqa: S301 - from this program
        _limit(limit_s)
        result = function(path)
    except MobileDeployError as error:
        result = error
    except (ImportError, SyntaxError) as error:  # no artifact causes these
        result = RuntimeFailedError(f"A module cannot be imported: {error}.", remedy=_INSTALL)
    except Exception as error:
        no_memory = out_of_memory(error)
        if no_memory is None:
            raise
        result = ArtifactError(f"{path} cannot be used. {no_memory.message}")
    with answer:
        answer.write(pickle.dumps(result))
    os._exit(0)  # a runtime may crash while it is unloaded, after its work


def _limit(limit_s: float) -> None:
    """Limit this process's memory to what is free, and its time if its parent dies."""
    seconds = int(limit_s) + 1
    limits = {resource.RLIMIT_CPU: seconds, resource.RLIMIT_CORE: 0}
    free = free_bytes()
    if free is not None:
        limits[resource.RLIMIT_DATA] = max(free, _LEAST_BYTES)
    for kind, limit in limits.items():
        with contextlib.suppress(ValueError, OSError):  # a lower limit holds already
            resource.setrlimit(kind, (limit, limit))


def _unusable(path: Path, how: str) -> ArtifactError:
    return ArtifactError(
        f"{path} cannot be used: the process that loaded it {how}.",
        remedy="Export the model again, or copy the file again: it is damaged, or its runtime has"
        " a bug.",
    )


def _describe_exit(code: int) -> str:
    if code == -signal.SIGXCPU:
        return "took too much processor time"
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
