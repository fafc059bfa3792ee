"""Serve one request, then leave nothing behind (the protocol: see the package)."""

from __future__ import annotations

import hashlib
import json
import os
import select
import shutil
import signal
import sys
import tempfile
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from mobiledeploy.devices.agent.errors import SETUP_REMEDY, RefusalError
from mobiledeploy.devices.agent.machine import describe
from mobiledeploy.devices.agent.tasks import TASKS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import BinaryIO, TextIO

    Tell = Callable[[dict[str, Any]], None]
    Request = dict[str, Any]
    Task = Callable[[Request, str, Tell], dict[str, Any]]

_CHUNK_BYTES = 1 << 20


def main() -> None:
    """Serve one request, then leave nothing behind."""
    tell = partial(_send, _claim_stdout())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other side closes the pipe when it stops
    for name in ("SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), lambda *_: sys.exit(1))
    tell({"hello": describe()})
    line = sys.stdin.buffer.readline()
    if not line:
        return
    request = json.loads(line)
    folder = tempfile.mkdtemp(prefix="mobiledeploy-")
    try:
        receive(sys.stdin.buffer, request["files"], folder)
        run_apart(TASKS[request["task"]], request, folder, tell)
    except RefusalError as refusal:
        tell({"error": refusal.reply})
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def receive(stream: BinaryIO, files: Sequence[dict[str, Any]], folder: str) -> None:
    """Write the files that follow a request, and read them back against their sha256."""
    free, needed = shutil.disk_usage(folder).free, sum(file["size"] for file in files)
    if needed > free:
        raise RefusalError(
            "RuntimeFailedError",
            f"{folder} has room for {free} bytes; {needed} are needed.",
            "Free some room over there, or point TMPDIR to a place that has it.",
        )
    for file in files:
        path = os.path.join(folder, file["name"])
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            _copy(stream, path, file["size"])
            found = _sha256(path)
        except OSError as error:
            raise RefusalError(
                "RuntimeFailedError",
                f"{path} could not be written over there: {error.strerror}.",
                "Free some room over there, or point TMPDIR to a place that has it.",
            ) from error
        if found != file["sha256"]:
            raise RefusalError(
                "RuntimeFailedError",
                f"{file['name']} arrived damaged: its sha256 is {found[:12]}..., expected "
                f"{file['sha256'][:12]}...",
                "Run the command again; if it happens again, the connection is not to be trusted.",
            )


def run_apart(task: Task, request: Request, folder: str, tell: Tell) -> None:
    """Run a task in a process of its own and wait for whichever comes first.

    Its end, the end of our stdin (nobody waits any more), or the end of its time.
    """
    ours, theirs = os.pipe(), os.pipe()  # each is closed by the death of one of the two
    pid = os.fork()
    if pid == 0:
        os.close(ours[0])
        os.close(theirs[1])
        _work(task, request, folder, tell, theirs[0])
    os.close(ours[1])
    os.close(theirs[0])
    try:
        readable = select.select([0, ours[0]], [], [], request["limit_s"])[0]
    finally:
        if not _has_ended(ours[0]):
            os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
    if not readable:
        tell({"died": {"how": f"took more than {request['limit_s']:g} s and was stopped"}})
    elif os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        tell({"died": {"how": f"was ended by {signal.Signals(number).name}"}})
    elif os.WEXITSTATUS(status):
        tell({"died": {"how": f"ended with code {os.WEXITSTATUS(status)}"}})


def _has_ended(life: int) -> bool:
    return bool(select.select([life], [], [], 0)[0])


def _work(task: Task, request: Request, folder: str, tell: Tell, parent_life: int) -> NoReturn:
    """Be the process that runs the artifacts; never return."""
    for name in ("SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    threading.Thread(target=_outlive, args=(parent_life, folder), daemon=True).start()
    os.environ["TMPDIR"] = folder  # what runtimes leave in the system's place for temporary files
    code = 1
    try:
        if request.get("affinity"):
            _bind(request["affinity"])
        tell({"result": task(request, folder, tell)})
        code = 0
    except RefusalError as refusal:
        tell({"error": refusal.reply})
        code = 0
    except ImportError as error:
        text = f"A module cannot be imported over there: {error}."
        tell({"error": RefusalError("RuntimeFailedError", text, SETUP_REMEDY).reply})
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)  # never back into the frames of the process that waits


def _outlive(parent_life: int, folder: str) -> None:
    """Clean up and die if the process that should clean up is gone."""
    os.read(parent_life, 1)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _bind(cores: list[int]) -> None:
    try:
        usable = os.sched_getaffinity(0)
    except AttributeError:
        raise RefusalError("UsageError", "This system does not bind processes to cores.") from None
    if not usable.issuperset(cores):  # of several, the kernel takes those that there are
        raise RefusalError(
            "UsageError",
            f"The process cannot be bound to the cores {cores}: not all of them are there for it.",
            f"This machine lets it use {sorted(usable)}.",
        )
    try:
        os.sched_setaffinity(0, cores)
    except OSError as error:
        raise RefusalError(
            "UsageError", f"The process cannot be bound to the cores {cores}: {error}."
        ) from error


def _claim_stdout() -> TextIO:
    """Keep stdout for the messages: whatever else is printed, also by C++, goes to stderr."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return replies


def _send(replies: TextIO, message: dict[str, Any]) -> None:
    replies.write("\x1e" + json.dumps(message) + "\n")
    replies.flush()


def _copy(stream: BinaryIO, path: str, size: int) -> None:
    """Copy `size` bytes; a stream that ends early leaves a file that its sha256 betrays."""
    with open(path, "wb") as handle:
        while size > 0:
            chunk = stream.read(min(size, _CHUNK_BYTES))
            if not chunk:
                break
            handle.write(chunk)
            size -= len(chunk)


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        for chunk in iter(partial(handle.read, _CHUNK_BYTES), b""):
            digest.update(chunk)
    return digest.hexdigest()
