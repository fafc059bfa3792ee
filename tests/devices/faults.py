"""What the tests of injected faults share."""

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from adbd import Daemon
from real_parts import missing
from sshd import Server

PATIENCE_S = 240  # enough for a slow and busy machine
CORRUPTER = """
import subprocess, sys
from threading import Thread
child = subprocess.Popen(sys.argv[2:], stdin=subprocess.PIPE)
data = sys.stdin.buffer.read1(1 << 22)
while data:
    at = data.find(b"classifier.weight")
    if at >= 0 and sys.argv[1] == "flip":
        data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    if at >= 0 and sys.argv[1] == "cut":
        child.stdin.write(data[:at])
        break
    child.stdin.write(data)
    child.stdin.flush()
    data = sys.stdin.buffer.read1(1 << 22)
child.stdin.close()
sys.exit(child.wait())
"""
# Changes ONNX Runtime when it is imported.
AT_IMPORT = """
import builtins, os, signal, sys, time
real_import = builtins.__import__
def watching(name, *others, **more):
    module = real_import(name, *others, **more)
    if name == "onnxruntime" and hasattr(module, "InferenceSession"):
        builtins.__import__ = real_import
        {act}
    return module
builtins.__import__ = watching
"""
RAISE = "(_ for _ in ()).throw(RuntimeError('no luck'))"
CRASH = "os.kill(os.getpid(), signal.SIGSEGV)"


@dataclass
class Place:
    """What a fault is made with: folders for temporary files and tools, an artifact, devices."""

    tmp: Path
    tools: Path
    artifact: Path
    ssh: Server
    open: contextlib.ExitStack
    phones: Callable[..., Daemon]

    def python(self, *lines: str, before: str = "", environment: str = "") -> str:
        """Return an `exec:` device: this Python, which first runs `lines`."""
        site = self.tools / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text("\n".join(lines))
        variables = f"TMPDIR={self.tmp} PYTHONPATH={site} {environment}"
        return f"exec:{before} env {variables} {sys.executable}"

    def script(self, name: str, text: str) -> Path:
        path = self.tools / name
        path.write_text(text)
        path.chmod(0o755)
        return path


def registry(faults):
    """Return a decorator that registers a function that makes a fault.

    The function returns the device and further options.
    """

    def fault(code: int, message: str):
        def register(arrange):
            faults[arrange.__name__.replace("_", " ")] = (arrange, code, message)
            return arrange

        return register

    return fault


def when_loading(expression: str) -> str:
    """Evaluate an expression in place of loading a model."""
    act = f"module.InferenceSession = lambda *a, **k: {expression}"
    return AT_IMPORT.format(act=act)


def when_running(expression: str) -> str:
    """Evaluate an expression, which may call `run(*a)`, in place of an inference."""
    act = "run = module.InferenceSession.run; "
    return AT_IMPORT.format(act=act + f"module.InferenceSession.run = lambda *a: {expression}")


def listed_faults(repository, heading):
    """Return fault -> exit code of a table of the documentation."""
    text = (repository / "docs" / "reference" / "devices.md").read_text()
    table = text.split(heading)[1].split("| fault | what the command says | exit code |")[1]
    rows = table.split("\n\n")[0]
    return dict(re.findall(r"^\| ([^|]+) \| [^|]+ \| (\d) \|$", rows, re.MULTILINE))


def when(path, act):
    """Call `act` as soon as a file exists."""
    from threading import Thread

    def wait():
        until = time.monotonic() + PATIENCE_S
        while not path.exists() and time.monotonic() < until:
            time.sleep(0.05)
        act()

    Thread(target=wait, daemon=True).start()


def mount_tiny(folder):
    """Mount a file system of 16 KiB on a folder."""
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", folder],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        missing("the right to mount a file system", "run the tests as root")


def processes_in(folder):
    """Return the processes whose working directory is in a folder, even if it was removed."""
    found = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):  # it has ended
            found += [link] if link.readlink().is_relative_to(folder) else []
    return found


def wait_until(holds):
    until = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)


def wait_until_empty(folder):
    """Wait until a folder is empty: the agent may still be cleaning up."""
    wait_until(lambda: not list(folder.iterdir()))
