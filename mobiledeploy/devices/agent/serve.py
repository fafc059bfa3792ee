"""Serve one request and remove all its files (the package describes the protocol)."""

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
from typing import TYPE_CHECKING, NoReturn

from mobiledeploy.devices.agent.errors import SETUP_REMEDY, AgentError
from mobiledeploy.devices.agent.machine import describe
from mobiledeploy.devices.agent.request import MAX_LINE_BYTES, read_request
from mobiledeploy.devices.agent.tasks import TASKS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import BinaryIO, TextIO

    from mobiledeploy.devices.request import FileEntry, Message, RequestMessage, Result

    Send = Callable[[Message], None]
    Task = Callable[[RequestMessage, str, Send], Result]

_CHUNK_BYTES = 1 << 20
_MAX_WAIT_S = 2e6  # what the system takes as a time limit
_DISK_REMEDY = "Free space on the device, or set TMPDIR there to a folder with more space."


def main() -> None:
    """Serve one request, then remove its files."""
    send = partial(_send, _claim_stdout())
    try:
        try:
            _serve(send)
        except AgentError as error:
            send({"error": error.report})
    except BrokenPipeError:  # the other side is gone
        os._exit(1)


def _serve(send: Send) -> None:
    """Receive one request and carry it out.

    Raises:
        AgentError: The request cannot be read, or its files cannot be received.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other side closes the pipe when it stops
    for name in ("SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), lambda *_: sys.exit(1))
    send({"hello": describe()})
    line = sys.stdin.buffer.readline(MAX_LINE_BYTES + 1)
    if not line:  # only the description was wanted
        return
    request = read_request(line, list(TASKS))
    folder = tempfile.mkdtemp(prefix="mobiledeploy-")
    try:
        receive(sys.stdin.buffer, request["files"], folder)
        run_in_child(TASKS[request["task"]], request, folder, send)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def receive(stream: BinaryIO, files: Sequence[FileEntry], folder: str) -> None:
    """Write the files that follow a request, then check the sha256 of what was written.

    Raises:
        AgentError: There is no room, a file cannot be written, or its sha256 is wrong.
    """
    free, needed = shutil.disk_usage(folder).free, sum(file["size"] for file in files)
    if needed > free:
        raise AgentError(
            "RuntimeFailedError",
            f"{folder} on the device has {free} bytes free; {needed} are needed.",
            _DISK_REMEDY,
        )
    for file in files:
        path = os.path.join(folder, file["name"])
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            _copy(stream, path, file["size"])
            found = _sha256(path)
        except OSError as error:
            raise AgentError(
                "RuntimeFailedError",
                f"Could not write {path} on the device: {error.strerror}.",
                _DISK_REMEDY,
            ) from error
        if found != file["sha256"]:
            raise AgentError(
                "RuntimeFailedError",
                f"{file['name']} arrived damaged: its sha256 is {found[:12]}..., expected "
                f"{file['sha256'][:12]}...",
                "Run the command again. If it fails again, the connection is unreliable.",
            )


def run_in_child(task: Task, request: RequestMessage, folder: str, send: Send) -> None:
    """Run a task in a child process.

    Wait for the first of: its end, the end of stdin (the other side has stopped waiting), and the
    time limit.
    """
    ours, theirs = os.pipe(), os.pipe()  # the death of one process closes its pipe in the other
    pid = os.fork()
    if pid == 0:
        os.close(ours[0])
        os.close(theirs[1])
        _run_task_and_exit(task, request, folder, send, theirs[0])
    os.close(ours[1])
    os.close(theirs[0])
    try:
        readable = select.select([0, ours[0]], [], [], min(request["limit_s"], _MAX_WAIT_S))[0]
    finally:
        if not _is_closed(ours[0]):
            os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
    if not readable:
        send({"died": {"how": f"took more than {request['limit_s']:g} s and was stopped"}})
    elif os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        send({"died": {"how": f"was ended by {signal.Signals(number).name}"}})
    elif os.WEXITSTATUS(status):
        send({"died": {"how": f"ended with code {os.WEXITSTATUS(status)}"}})


def _is_closed(pipe: int) -> bool:
    return bool(select.select([pipe], [], [], 0)[0])


def _run_task_and_exit(
    task: Task, request: RequestMessage, folder: str, send: Send, parent_pipe: int
) -> NoReturn:
    """Run a task in this process, send its result or its error, and exit."""
    for name in ("SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    threading.Thread(target=_exit_with_parent, args=(parent_pipe, folder), daemon=True).start()
    os.environ["TMPDIR"] = folder  # temporary files of the runtimes are removed with it
    code = 1
    try:
        if request["affinity"]:
            _set_affinity(request["affinity"])
        send({"result": task(request, folder, send)})
        code = 0
    except AgentError as error:
        send({"error": error.report})
        code = 0
    except ImportError as error:
        text = f"A module cannot be imported on the device: {error}."
        send({"error": AgentError("RuntimeFailedError", text, SETUP_REMEDY).report})
        code = 0
    except MemoryError:
        text = "The device has no memory for the task."
        remedy = "Free memory on the device, or export the model again: it may be damaged."
        send({"error": AgentError("RuntimeFailedError", text, remedy).report})
        code = 0
    except BrokenPipeError:  # the other side is gone
        pass
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)  # never return into the parent's frames


def _exit_with_parent(parent_pipe: int, folder: str) -> None:
    """Wait for the parent to die, then remove the folder in its place and exit."""
    os.read(parent_pipe, 1)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _set_affinity(cores: Sequence[int]) -> None:
    """Bind this process to cores.

    Raises:
        AgentError: The system has no affinity, or the process may not use all of the cores.
    """
    try:
        usable = os.sched_getaffinity(0)
    except AttributeError:
        raise AgentError(
            "UsageError",
            "This system cannot bind processes to cores.",
            "Remove --cpu-affinity.",
        ) from None
    if not usable.issuperset(cores):  # the kernel would silently use those that exist
        raise AgentError(
            "UsageError",
            f"The process cannot be bound to the cores {cores}; it may use {sorted(usable)}.",
            "Choose --cpu-affinity from these.",
        )
    try:
        os.sched_setaffinity(0, cores)
    except OSError as error:
        raise AgentError(
            "UsageError", f"The process cannot be bound to the cores {cores}: {error}."
        ) from error


def _claim_stdout() -> TextIO:
    """Return a stream to stdout; redirect what others print there, also from C++, to stderr."""
    messages = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return messages


def _send(messages: TextIO, message: Message) -> None:
    messages.write("\x1e" + json.dumps(message) + "\n")
    messages.flush()


def _copy(stream: BinaryIO, path: str, size: int) -> None:
    """Copy `size` bytes; if the stream ends early, the sha256 of the file will be wrong."""
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
