"""The agent: the program that a device gets through the pipe to its Python. Nothing is installed.

These modules need Python 3.9 or later, numpy, and onnxruntime or executorch. `bundle` joins them
into one text and `BOOTSTRAP` starts it. The files that the agent receives lie in one temporary
folder, which is removed when the agent ends: also when the runtime crashes, the time limit is
reached, or the connection breaks.

Input (stdin): one line of JSON, the request, then the bytes of the files that it lists. The pipe
stays open while the other side waits for the result; its end tells the agent to stop. `request`
checks the line before anything is done.

Output (stdout): JSON text sequences (RFC 7464), one message per line. Everything else on stdout
comes from other programs.

    {"hello": {"protocol": 3, ...}}   the description of the machine (`machine.describe`)
    {"loading": LABEL}                the artifact that is loaded next
    {"progress": F}                   the share of the rounds that are done, 0 to 1
    {"result": {...}}                 the last message (see `tasks`), or
    {"error": {"type": ..., "message": ..., "remedy": ...}}, or
    {"died": {"how": ...}}            how the process that ran the artifacts died

`mobiledeploy.devices.request` has the types of the messages. The process that receives the files
only waits; its child runs the artifacts. Whichever of the two survives the other cleans up.
"""

from __future__ import annotations

from importlib import resources

BOOTSTRAP = "import sys;n=int(sys.stdin.buffer.readline());exec(sys.stdin.buffer.read(n))"
_MODULES = (
    "errors",
    "request",
    "machine",
    "timing",
    "instructions",
    "runtimes",
    "operators",
    "tasks",
    "serve",
)
# ONNX Runtime leaves files in the home folder unless its telemetry is off before it is imported.
_LOADER = """
import os, sys, types
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
if sys.version_info < (3, 9):
    sys.exit("Python 3.9 or later is needed; this is Python " + sys.version)
for name, source in SOURCES:
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(source, name + ".py", "exec"), module.__dict__)
sys.modules[name].main()
"""


def bundle() -> bytes:
    """Return the agent as one program: its modules, under their own names, and a call of `main`."""
    here = resources.files(__name__)
    parents = ("mobiledeploy", "mobiledeploy.devices", __name__)
    modules = [(name, "") for name in parents]
    modules += [(f"{__name__}.{name}", (here / f"{name}.py").read_text()) for name in _MODULES]
    return f"SOURCES = {modules!r}\n{_LOADER}".encode()
