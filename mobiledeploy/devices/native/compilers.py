"""The C++ compilers that the native runner can be built with, and their C and C++ libraries.

g++ of Debian and Ubuntu brings its libraries along. Zig (`pip install ziglang`) compiles for ARM64
without one; the libraries then come from Debian's packages, pinned by sha256. Both runtimes need
GNU's C++ library, so its headers are used in place of Zig's own.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mobiledeploy.devices.command_output import last_output
from mobiledeploy.devices.native.sources import (
    CROSS_HEADERS,
    CROSS_LIBRARIES,
    fetch_package,
    unpack_package,
)
from mobiledeploy.errors import RuntimeFailedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

_VERSIONS = range(15, 9, -1)  # of g++, the newest first
_TIMEOUT_S = 600
_ZIG_TARGET = "aarch64-linux-gnu.2.36"  # the version of the C library in CROSS_LIBRARIES


class Compiler:
    """A C++17 compiler for GNU/Linux that knows where its libraries are.

    Args:
        command: The command line that starts it.
        work: A folder for its files.
    """

    def __init__(self, command: str, work: Path) -> None:
        self._argv = shlex.split(command)
        self._work = work

    def compile(self, arguments: Sequence[str]) -> None:
        """Compile and link, in the folder of the sources.

        Raises:
            RuntimeFailedError: The compiler does not exist, failed, or took too long.
        """
        self._run(arguments)

    def library(self, name: str) -> Path:
        """Return a library of the target's system.

        Raises:
            RuntimeFailedError: The compiler does not know it.
        """
        found = Path(self._run([f"-print-file-name={name}"]).strip())
        if not found.is_absolute():
            raise RuntimeFailedError(
                f"`{shlex.join(self._argv)}` does not find {name}, which the bundle needs.",
                remedy="Use a compiler for GNU/Linux that brings its C library, such as Debian's.",
            )
        return found

    def _run(self, arguments: Sequence[str], environment: dict[str, str] | None = None) -> str:
        try:
            return subprocess.run(  # noqa: S603 - an argv, no shell
                [*self._argv, *arguments],
                cwd=self._work,
                env=os.environ | (environment or {}),
                capture_output=True,
                text=True,
                check=True,
                timeout=_TIMEOUT_S,
            ).stdout
        except (OSError, subprocess.SubprocessError) as error:
            output = getattr(error, "stderr", None) or str(error)
            raise RuntimeFailedError(
                f"The native runner could not be compiled with `{shlex.join(self._argv)}`."
                f"{last_output(output if isinstance(output, str) else output.decode())}",
                remedy="Use g++ 10 or later for the architecture of the device, or Zig: --compiler "
                "names one.",
            ) from error


class Zig(Compiler):
    """Zig as a compiler for ARM64, with the libraries of Debian's cross compiler."""

    def __init__(self, command: str, work: Path) -> None:
        super().__init__(command, work)
        self._headers, self._libraries = work / "c++", work / "libraries"
        unpack_package(fetch_package(CROSS_HEADERS), CROSS_HEADERS, self._headers)
        for package in CROSS_LIBRARIES:
            unpack_package(fetch_package(package), package, self._libraries)

    def compile(self, arguments: Sequence[str]) -> None:
        """See `Compiler`; Zig's caches go into the folder of the sources."""
        # -I and not -isystem: these headers must come before those of the C library
        headers = [self._headers, self._headers / "aarch64-linux-gnu"]
        target = ["c++", "-target", _ZIG_TARGET, "-nostdinc++"]
        target += [f"-I{folder}" for folder in headers]
        linking = ["-nostdlib++"]
        linking += [str(self.library(name)) for name in ("libstdc++.so.6", "libgcc_s.so.1")]
        caches = dict.fromkeys(("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"), "zig-cache")
        self._run([*target, *arguments, *linking], caches)

    def library(self, name: str) -> Path:
        """See `Compiler`."""
        return self._libraries / name


def open_compiler(architecture: str, command: str, work: Path) -> Compiler:
    """Return a compiler for an architecture.

    Args:
        architecture: "aarch64" or "x86_64".
        command: The command line that starts it; "" for the one that is installed.
        work: The folder of the sources, for its files.

    Raises:
        UsageError: It is Zig, and the architecture is not aarch64.
        RuntimeFailedError: There is none, or its libraries cannot be downloaded.
    """
    command = command or _installed(architecture)
    if not _is_zig(command):
        return Compiler(command, work)
    if architecture != "aarch64":
        raise UsageError(
            f"Zig builds the native runner for aarch64 only, not for {architecture}.",
            remedy="Use g++: --compiler names it.",
        )
    return Zig(command, work)


def _is_zig(command: str) -> bool:
    program, *arguments = shlex.split(command)
    return Path(program).stem == "zig" or arguments == ["-m", "ziglang"]


def _installed(architecture: str) -> str:
    """Return the command of the compiler for an architecture; Zig where there is no g++.

    Raises:
        RuntimeFailedError: There is none.
    """
    names = [f"{architecture}-linux-gnu-g++"]
    names += [f"{names[0]}-{version}" for version in _VERSIONS]
    if platform.machine() == architecture and platform.system() == "Linux":
        names.insert(0, os.environ.get("CXX") or "c++")
    found = [name for name in names if shutil.which(name)]
    if found:
        return found[0]
    if architecture == "aarch64" and shutil.which("zig"):
        return "zig"
    if architecture == "aarch64" and importlib.util.find_spec("ziglang"):
        return shlex.join([sys.executable, "-m", "ziglang"])
    package = f"g++-{architecture.replace('_', '-')}-linux-gnu"
    elsewhere = "pip install ziglang" if architecture == "aarch64" else "name one with --compiler"
    raise RuntimeFailedError(
        f"There is no C++ compiler for {architecture}.",
        remedy=f"Debian and Ubuntu: apt-get install {package}. Elsewhere: {elsewhere}, or run "
        "`mobiledeploy device bundle --out PATH` in a Debian container and pass that file with "
        "--bundle.",
    )
