"""Run mobiledeploy commands one after the other, and stop when the parent is gone.

`python -m mobiledeploy.sweep.child PARENT_PID` reads a JSON list of arguments per line from stdin
and answers each with a line of JSON on stdout (`ChildProcess` is the other end). PyTorch and the
exporters load once. After a command that failed the process ends: what it left in memory is
unknown. An export that outlives a killed sweep would disturb what is measured next.
"""

from __future__ import annotations

import gc
import io
import json
import os
import resource
import runpy
import signal
import sys
import threading
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NoReturn

_EVERY_S = 0.5
_STOPPED = 128 + signal.SIGTERM


def main() -> NoReturn:
    """Run the commands that stdin names, until it ends or one of them fails."""
    parent = int(sys.argv[1])
    threading.Thread(target=_stop_without, args=(parent,), daemon=True).start()
    code = 0
    try:
        requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)  # what libraries print is no answer
        for number, line in enumerate(requests):
            answer = _run(json.loads(line))
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
            code = answer["code"]
            if code:
                break
            if number == 0:  # the libraries stay: no need to walk them again
                gc.freeze()
    except KeyboardInterrupt:  # a signal between two commands
        code = _STOPPED
    except BrokenPipeError:  # the parent has gone
        code = 1
    os._exit(code)  # a runtime may crash while it is unloaded, after its work


def _run(arguments: list[str]) -> dict[str, Any]:
    """Run a command; return its exit code, what it printed, and the memory it left in use."""
    stdout, stderr = io.StringIO(), io.StringIO()
    sys.argv = ["mobiledeploy", *arguments]
    with redirect_stdout(stdout), redirect_stderr(stderr):
        try:
            runpy.run_module("mobiledeploy", run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    gc.collect()
    return {
        "code": code,
        "stdout": stdout.getvalue(),
        "stderr": stderr.getvalue(),
        "memory_bytes": _memory_bytes(),
    }


def _memory_bytes() -> int:
    """Return the memory of this process: what it holds now or, if unknown, what it held at most."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * resource.getpagesize()
    except OSError:  # no Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _stop_without(parent: int) -> None:
    """Stop this process, as Ctrl-C would, when its parent is another process than `parent`."""
    while os.getppid() == parent:
        time.sleep(_EVERY_S)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
