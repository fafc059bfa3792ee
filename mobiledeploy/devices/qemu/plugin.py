"""The plugin with which QEMU counts instructions, compiled for this machine when it is needed.

In: `plugin.c` beside this file, and the system's C compiler. Out: a shared library in the
cache, one for each text of the source.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import subprocess
from importlib import resources
from typing import TYPE_CHECKING

from mobiledeploy.errors import RuntimeFailedError
from mobiledeploy.utils.files import cache_folder, write_whole

if TYPE_CHECKING:
    from pathlib import Path

_FLAGS = ("-shared", "-fPIC", "-O2", "-fvisibility=hidden", "-Wall", "-Wextra")
_TIMEOUT_S = 60


def environment() -> dict[str, str]:
    """Return what makes every QEMU that inherits it load the plugin, and Python's hashes the same.

    Strings are hashed with a random seed otherwise, and dictionaries take now more, now fewer
    instructions.

    Raises:
        RuntimeFailedError: the plugin cannot be compiled.
    """
    path = str(build()).replace(",", ",,")  # a comma ends QEMU's options; two stand for one
    return {"QEMU_PLUGIN": f"file={path}", "PYTHONHASHSEED": "0"}


def build() -> Path:
    """Return the path of the compiled plugin; compile it where the cache does not have it.

    Raises:
        RuntimeFailedError: there is no C compiler, it fails, or the cache cannot be written.
    """
    source = (resources.files("mobiledeploy.devices.qemu") / "plugin.c").read_bytes()
    digest = hashlib.sha256(source).hexdigest()[:12]
    target = cache_folder() / "qemu" / f"count-{digest}-{platform.machine()}.so"
    if not target.exists():
        with write_whole(target) as part:
            _compile(source, part)
    return target


def _compile(source: bytes, target: Path) -> None:
    compiler = shlex.split(os.environ.get("CC") or "cc")
    command = [*compiler, *_FLAGS, "-x", "c", "-", "-o", str(target)]
    try:
        subprocess.run(command, input=source, capture_output=True, check=True, timeout=_TIMEOUT_S)  # noqa: S603 - an argv, no shell
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error).encode()
        raise RuntimeFailedError(
            "The plugin with which QEMU counts instructions could not be compiled by "
            f"`{shlex.join(compiler)}`. It said:\n{said.decode(errors='replace').strip()}",
            remedy="Install a C compiler (Debian: gcc and libc6-dev), or name one with CC.",
        ) from error
