"""Build the bundle: one folder with the native runner, the runtimes, the C library and its loader.

The bundle depends on nothing of the device but its kernel. `runner_key` names the version of the
runner and of its runtimes; a device keeps each version in a folder of its own.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import tarfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Self

from mobiledeploy.devices.agent.machine import PROTOCOL
from mobiledeploy.devices.native.compilers import Compiler, open_compiler
from mobiledeploy.devices.native.sources import (
    ARCHITECTURES,
    EXECUTORCH,
    JSON_HEADERS,
    ONNXRUNTIME,
    ONNXRUNTIME_HEADERS,
    fetch_package,
    fetch_wheel,
    unpack_package,
    unpack_wheel,
)
from mobiledeploy.errors import RuntimeFailedError, UsageError
from mobiledeploy.utils.files import cache_folder, removed_when_done, sha256_of, write_whole
from mobiledeploy.utils.progress import step

SUMS = "SHA256SUMS"
_MANIFEST = "manifest.json"
_EXECUTORCH_LIBRARIES = (
    "libexecutorch",
    "libexecutorch_backend_xnnpack",
    "libexecutorch_kernels_optimized",
    "libexecutorch_kernels_quantized",
    "libexecutorch_threadpool",
)
_SYSTEM_LIBRARIES = (
    *("libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1"),
    *("libstdc++.so.6", "libgcc_s.so.1"),
)
_LOADERS = {"aarch64": "ld-linux-aarch64.so.1", "x86_64": "ld-linux-x86-64.so.2"}
_SOURCES = (
    *("runner.h", "runner.cpp", "serve.cpp", "request.cpp", "tasks.cpp", "machine.cpp"),
    *("files.cpp", "runtimes.cpp", "onnxruntime.cpp", "executorch.cpp"),
)
_FLAGS = ("-std=c++17", "-O2", "-s", "-Wall", "-Wextra")
_YEAR_2000 = 946684800


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle on this machine.

    Attributes:
        folder: Its files.
        architecture: "aarch64" or "x86_64".
        key: The version of the runner and its runtimes (`runner_key`).
    """

    folder: Path
    architecture: str
    key: str

    @property
    def size_bytes(self) -> int:
        """Return the size of its files."""
        return sum(path.stat().st_size for path in self.folder.iterdir())

    @property
    def sums_sha256(self) -> str:
        """Return the sha256 of the list of sha256, which stands for the content of all files."""
        return sha256_of(self.folder / SUMS)

    def command(self) -> list[str]:
        """Return the argv that starts the runner on this machine, or in an emulator."""
        loader = self.folder / _LOADERS[self.architecture]
        return [str(loader), "--library-path", str(self.folder), str(self.folder / "runner")]

    def pack(self) -> bytes:
        """Return the bundle as a `.tar.gz`; the same bytes for the same files."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for path in sorted(self.folder.iterdir()):
                entry = tarfile.TarInfo(path.name)
                entry.size, entry.mode, entry.mtime = path.stat().st_size, 0o755, _YEAR_2000
                with path.open("rb") as handle:
                    archive.addfile(entry, handle)
        return gzip.compress(packed.getvalue(), 6, mtime=_YEAR_2000)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Return the bundle in a folder, whose files have been checked.

        Raises:
            OSError: It has no manifest.
            ValueError: The manifest is damaged.
            KeyError: The manifest is of another version.
        """
        manifest = json.loads((folder / _MANIFEST).read_text())
        return cls(folder=folder, architecture=manifest["architecture"], key=manifest["key"])


def runner_key() -> str:
    """Return the version of the runner: a hash of its sources and of the pinned runtimes."""
    digest = hashlib.sha256()
    for name in _SOURCES:
        digest.update(_source(name))
    digest.update(repr((PROTOCOL, EXECUTORCH.version, ONNXRUNTIME.version)).encode())
    return digest.hexdigest()[:12]


def runner_folder() -> str:
    """Return the name of the runner's folder on a device."""
    return f"runner-{runner_key()}"


def cached_bundle(architecture: str) -> Bundle:
    """Return the bundle in the cache.

    Raises:
        RuntimeFailedError: There is none of this version.
    """
    folder = _cached_folder(architecture)
    if not folder.is_dir():
        raise RuntimeFailedError(
            f"There is no native runner for {architecture} on this machine.",
            remedy="Run `mobiledeploy device setup URI` first.",
        )
    return Bundle.open(folder)


def build_bundle(architecture: str, *, compiler: str = "") -> Bundle:
    """Return the bundle for an architecture; build it in the cache if it is not there.

    Args:
        architecture: "aarch64" or "x86_64".
        compiler: The command of a C++17 compiler for it, or of Zig; "" for the one that is
            installed.

    Raises:
        UsageError: The architecture is another one.
        RuntimeFailedError: There is no compiler, it fails, or a file cannot be downloaded.
    """
    if architecture not in ARCHITECTURES:
        raise UsageError(
            f"There is no native runner for {architecture}.",
            remedy=f"Expected {' or '.join(ARCHITECTURES)}. On other machines use Python: "
            "--runner python.",
        )
    folder = _cached_folder(architecture)
    if folder.is_dir():
        return Bundle.open(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with removed_when_done(".build-", dir=folder.parent) as work:
        made = work / "bundle"
        made.mkdir()
        _build(work, made, architecture, open_compiler(architecture, compiler, work))
        _finish(made, architecture)
        _keep(made, folder)
    return Bundle.open(folder)


def unpack_bundle(path: Path) -> Bundle:
    """Return the bundle of a `.tar.gz`, unpacked into the cache.

    Raises:
        UsageError: The file is no bundle, is damaged, or is of another version.
    """
    cache = cache_folder() / "runner"
    cache.mkdir(parents=True, exist_ok=True)
    with removed_when_done(".unpack-", dir=cache) as work:
        made = work / "bundle"
        try:
            with tarfile.open(path) as archive:
                archive.extractall(made, filter="data")
            bundle = Bundle.open(made)
            expected = _sums(made)
            found = (made / SUMS).read_text()
        except (OSError, EOFError, tarfile.TarError, ValueError, KeyError) as error:
            raise UsageError(
                f"{path} is not a bundle of the native runner: {error}.",
                remedy="Build one with `mobiledeploy device bundle --out PATH`.",
            ) from error
        if found != expected:
            raise UsageError(
                f"{path} is damaged: a file has not the sha256 that {SUMS} lists.",
                remedy="Copy it again, or build it again with `mobiledeploy device bundle`.",
            )
        if bundle.key != runner_key():
            raise UsageError(
                f"{path} has the version {bundle.key} of the runner; expected {runner_key()}.",
                remedy="Build it with this version of mobiledeploy: `mobiledeploy device bundle`.",
            )
        folder = _cached_folder(bundle.architecture)
        shutil.rmtree(folder, ignore_errors=True)
        _keep(made, folder)
    return Bundle.open(folder)


def write_bundle(bundle: Bundle, path: Path) -> int:
    """Write a bundle as a `.tar.gz`; return its size.

    Raises:
        RuntimeFailedError: The file cannot be written.
    """
    data = bundle.pack()
    with write_whole(path) as part:
        part.write_bytes(data)
    return len(data)


def clean_cache() -> list[str]:
    """Remove all bundles from the cache; return the folders that were removed."""
    cache = cache_folder() / "runner"
    folders = [path for name in ARCHITECTURES for path in sorted(cache.glob(f"{name}-*"))]
    for folder in folders:
        shutil.rmtree(folder)
    return [str(folder) for folder in folders]


def _cached_folder(architecture: str) -> Path:
    return cache_folder() / "runner" / f"{architecture}-{runner_key()}"


def _source(name: str) -> bytes:
    return (resources.files("mobiledeploy.devices.runner") / name).read_bytes()


def _build(work: Path, made: Path, architecture: str, compiler: Compiler) -> None:
    """Compile the runner, and copy the libraries that it needs into `made`."""
    executorch = fetch_wheel(EXECUTORCH, architecture)
    onnxruntime = fetch_wheel(ONNXRUNTIME, architecture)
    for headers in (ONNXRUNTIME_HEADERS, JSON_HEADERS):
        unpack_package(fetch_package(headers), headers, work / "include")
    unpack_wheel(executorch, work, ("executorch/lib/lib", "executorch/include/"))
    unpack_wheel(onnxruntime, work, ("onnxruntime/capi/libonnxruntime.so",))
    [library] = (work / "onnxruntime" / "capi").iterdir()
    library.rename(made / "libonnxruntime.so.1")
    sources = work / "sources"
    sources.mkdir()
    for name in _SOURCES:
        (sources / name).write_bytes(_source(name))
    with step(f"Compiling the native runner for {architecture}"):
        _compile(compiler, work, made)
    for name in _EXECUTORCH_LIBRARIES:
        shutil.copy(work / "executorch" / "lib" / f"{name}.so", made)
    for name in (_LOADERS[architecture], *_SYSTEM_LIBRARIES):
        shutil.copy(compiler.library(name), made / name)


def _compile(compiler: Compiler, work: Path, made: Path) -> None:
    """Compile `runner` and `executorch.so`."""
    package = work / "executorch"
    portable = package / "include/executorch/runtime/core/portable_type/c10"
    common = [
        *_FLAGS,
        f"-ffile-prefix-map={work}=.",  # the same bytes, wherever it is compiled
        *("-isystem", str(work / "include")),
        f'-DEXECUTORCH_VERSION="{EXECUTORCH.version}"',
        f'-DONNXRUNTIME_VERSION="{ONNXRUNTIME.version}"',
    ]
    compiler.compile(
        [*common, "sources/runner.cpp", "-o", str(made / "runner"), "-ldl", "-pthread"]
    )
    flags = ["-fPIC", "-shared", "-DC10_USING_CUSTOM_GENERATED_MACROS"]
    flags += ["-DET_EVENT_TRACER_ENABLED"]  # as its libraries: classes have the same layout
    flags += ["-isystem", str(package / "include"), "-isystem", str(portable)]
    libraries = [f"-l{name.removeprefix('lib')}" for name in _EXECUTORCH_LIBRARIES]
    sources = ["sources/executorch.cpp", "sources/files.cpp"]
    linking = [f"-L{package / 'lib'}", "-Wl,--no-as-needed", *libraries]  # they register themselves
    target = str(made / "executorch.so")
    compiler.compile([*common, *flags, *sources, "-o", target, *linking])


def _finish(made: Path, architecture: str) -> None:
    """Write the manifest, and the list of sha256."""
    manifest = {
        "key": runner_key(),
        "architecture": architecture,
        "protocol": PROTOCOL,
        "executorch": EXECUTORCH.version,
        "onnxruntime": ONNXRUNTIME.version,
    }
    (made / _MANIFEST).write_text(json.dumps(manifest, indent=1))
    (made / SUMS).write_text(_sums(made))
    for path in made.iterdir():
        path.chmod(0o755)


def _sums(folder: Path) -> str:
    """Return the sha256 of all files, as `sha256sum` prints them."""
    files = sorted(path for path in folder.iterdir() if path.name != SUMS)
    return "".join(f"{sha256_of(path)}  {path.name}\n" for path in files)


def _keep(made: Path, folder: Path) -> None:
    """Move a finished folder to its place, unless another process was faster."""
    try:
        made.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
