"""Run a mobiledeploy command that stops when its parent is gone.

`python -m mobiledeploy.sweep.child PARENT_PID COMMAND...`. An export that outlives a killed sweep
would disturb what is measured next.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time
from typing import NoReturn

_EVERY_S = 0.5


def main() -> NoReturn:
    """Run the command line with the arguments after the parent's process id."""
    parent = int(sys.argv.pop(1))
    threading.Thread(target=_stop_without, args=(parent,), daemon=True).start()
    runpy.run_module("mobiledeploy", run_name="__main__", alter_sys=True)
    sys.exit()


def _stop_without(parent: int) -> None:
    """Stop this process, as Ctrl-C would, when its parent is another process than `parent`."""
    while os.getppid() == parent:
        time.sleep(_EVERY_S)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
