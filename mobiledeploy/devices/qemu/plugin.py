"""Compile the QEMU plugin that counts instructions.

`plugin.c` beside this file is compiled with the system's C compiler on first use. The shared
library is cached under a name with the hash of the source.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import subprocess
from importlib import resources
from typing import TYPE_CHECKING

from mobiledeploy.devices.command_output import last_output
from mobiledeploy.errors import RuntimeFailedError
from mobiledeploy.utils.files import cache_folder, write_whole

if TYPE_CHECKING:
    from pathlib import Path

_FLAGS = ("-shared", "-fPIC", "-O2", "-fvisibility=hidden", "-Wall", "-Wextra")
_TIMEOUT_S = 60


def environment() -> dict[str, str]:
    """Return variables that make QEMU load the plugin and Python's string hashes constant.

    With randomised hashes, dictionaries take a varying number of instructions.

    Raises:
        RuntimeFailedError: The plugin cannot be compiled.
    """
    path = str(build()).replace(",", ",,")  # QEMU separates options by commas; two mean one
    return {"QEMU_PLUGIN": f"file={path}", "PYTHONHASHSEED": "0"}


def build() -> Path:
    """Return the path of the compiled plugin; compile it if it is not in the cache.

    Raises:
        RuntimeFailedError: There is no C compiler, it fails, or the cache cannot be written.
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
        output = getattr(error, "stderr", None) or str(error).encode()
        raise RuntimeFailedError(
            "The QEMU plugin that counts instructions could not be compiled with "
            f"`{shlex.join(compiler)}`.{last_output(output.decode(errors='replace'))}",
            remedy="Install a C compiler (Debian: gcc and libc6-dev), or name one with CC.",
        ) from error
