"""What runs over there: the one file that a device gets, through the pipe to its Python.

These modules need Python 3.9, numpy, and onnxruntime or executorch. `bundle` makes one text of
them, `BOOTSTRAP` is what starts it: nothing is installed. What the agent is sent lies in one
temporary folder, which is gone when it ends: also when the runtime crashes, its time is up, or the
other side goes away.

In (stdin): one line of JSON, the request; then the bytes of the files that it lists. The pipe stays
open for as long as somebody waits: its end is the order to stop.
Out (stdout): JSON text sequences (RFC 7464), one a line; anything else there was not written by us.

    {"hello": {"protocol": 1, ...}}        what this machine is (`machine.describe`)
    {"loading": LABEL}                     which artifact is next
    {"progress": F}                        share of the rounds that are done, 0 to 1
    {"result": {...}}                      the last one (see `tasks`), or
    {"error": {"type": ..., "message": ..., "remedy": ...}}, or
    {"died": {"how": ...}}                 the process that ran the artifacts is dead

The process that receives the files only waits; one forked off it runs the artifacts. Whichever
survives the other cleans up.
"""

from __future__ import annotations

from importlib import resources

BOOTSTRAP = "import sys;n=int(sys.stdin.buffer.readline());exec(sys.stdin.buffer.read(n))"
_MODULES = (
    "errors",
    "machine",
    "timing",
    "instructions",
    "runtimes",
    "operators",
    "tasks",
    "serve",
)
_LOADER = """
import sys, types
if sys.version_info < (3, 9):
    sys.exit("Python 3.9 or later is needed; this is Python " + sys.version)
for name, source in SOURCES:
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(source, name + ".py", "exec"), module.__dict__)
sys.modules[name].main()
"""


def bundle() -> bytes:
    """Return the agent as one file: its modules, each under its own name, and a call of `main`."""
    here = resources.files(__name__)
    parents = ("mobiledeploy", "mobiledeploy.devices", __name__)
    modules = [(name, "") for name in parents]
    modules += [(f"{__name__}.{name}", (here / f"{name}.py").read_text()) for name in _MODULES]
    return f"SOURCES = {modules!r}\n{_LOADER}".encode()
