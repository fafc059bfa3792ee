"""What the native runner is built from: pinned wheels and headers, downloaded into the cache.

ExecuTorch's wheels hold its C++ libraries and headers, without torch. ONNX Runtime's wheels hold
its library with the C API; Debian packages the header, and the JSON library. A newer ONNX Runtime
serves an older header. A compiler without GNU's libraries (Zig) gets them from Debian's packages.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mobiledeploy.errors import RuntimeFailedError
from mobiledeploy.utils.download import FetchError, download, pip_download
from mobiledeploy.utils.files import cache_folder, removed_when_done, sha256_of, write_whole
from mobiledeploy.utils.progress import step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

ARCHITECTURES = ("aarch64", "x86_64")
_DEBIAN = (
    "http://deb.debian.org/debian/pool/main/",
    "https://snapshot.debian.org/archive/debian/20260901T000000Z/pool/main/",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A package of PyPI with compiled libraries.

    Attributes:
        name: Of the package.
        version: Of the package.
        sha256: Architecture to the sha256 of the wheel for Python 3.11.
    """

    name: str
    version: str
    sha256: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class DebianPackage:
    """A Debian package.

    Attributes:
        path: In Debian's pool.
        size_bytes: Of the package.
        sha256: Of the package.
        folder: The folder in it that is used.
    """

    path: str
    size_bytes: int
    sha256: str
    folder: str


EXECUTORCH = Wheel(
    name="executorch",
    version="1.5.1",
    sha256={
        "aarch64": "8ee02348a3ea80ddf770822911ebf78da616b73afce0fbaaa79f23311c88c66a",
        "x86_64": "274c28c2fe2b76acb03f9fa381537425c40e0098dcf886baf6d97a1a55ffe300",
    },
)
ONNXRUNTIME = Wheel(
    name="onnxruntime",
    version="1.32.0",
    sha256={
        "aarch64": "2303372a85299b6757b0e11e1cbf13e410ddf7e10c37f4b37e99d1c90e7daf7c",
        "x86_64": "5a34fc4dfeb5a7b4a74c95dcba1e773d722abda720b474edf1b0c419dc6d163d",
    },
)
ONNXRUNTIME_HEADERS = DebianPackage(
    path="o/onnxruntime/libonnxruntime-dev_1.21.0+dfsg-1_arm64.deb",
    size_bytes=85340,
    sha256="d4b1967893865756c0fa8536be165259a8eb0e9068e60d322ba707ef4527e44e",
    folder="./usr/include/onnxruntime/",
)
JSON_HEADERS = DebianPackage(
    path="n/nlohmann-json3/nlohmann-json3-dev_3.11.2-2_all.deb",
    size_bytes=258828,
    sha256="ec57940def6b6186c30be0e0ee81d1e58f86d11a54a145b28686a1e3e4aae801",
    folder="./usr/include/",
)


_CROSS = "./usr/aarch64-linux-gnu/"
CROSS_HEADERS = DebianPackage(
    path="g/gcc-12-cross/libstdc++-12-dev-arm64-cross_12.2.0-14cross1_all.deb",
    size_bytes=1975364,
    sha256="942b5710c6b9792578dfa64f7a4633bc0d3cb205b56ded11297e240ff824f5da",
    folder=f"{_CROSS}include/c++/12/",
)
CROSS_LIBRARIES = (
    DebianPackage(
        path="c/cross-toolchain-base/libc6-arm64-cross_2.36-8cross1_all.deb",
        size_bytes=1004648,
        sha256="91936cbbee75771c360ed16513f6e734a25ca5517fe7c3e13dfd7835d7553186",
        folder=f"{_CROSS}lib/",
    ),
    DebianPackage(
        path="g/gcc-12-cross/libstdc++6-arm64-cross_12.2.0-14cross1_all.deb",
        size_bytes=513672,
        sha256="9cba984b64d0cf11698978fc5e0fe93c7441d29b9f42f70f1c6c734cc9e2ea41",
        folder=f"{_CROSS}lib/",
    ),
    DebianPackage(
        path="g/gcc-12-cross/libgcc-s1-arm64-cross_12.2.0-14cross1_all.deb",
        size_bytes=34832,
        sha256="af1e686fc6a416228222e7bfb68317dd2fa2685236301ae29141fc6108a66cac",
        folder=f"{_CROSS}lib/",
    ),
)


def fetch_wheel(wheel: Wheel, architecture: str) -> Path:
    """Return a wheel's path in the cache; download it with pip if it is not there.

    Raises:
        RuntimeFailedError: It cannot be downloaded, or has another sha256.
    """
    name = f"{wheel.name}-{wheel.version}-{architecture}.whl"
    writes = (partial(_download_wheel, wheel, architecture),)
    return _fetch(name, wheel.sha256[architecture], writes)


def fetch_package(package: DebianPackage) -> Path:
    """Return a Debian package's path in the cache; download it if it is not there.

    Raises:
        RuntimeFailedError: It cannot be downloaded, or has another sha256.
    """
    writes = [
        partial(download, host + package.path, size_bytes=package.size_bytes) for host in _DEBIAN
    ]
    return _fetch(package.path.rpartition("/")[2], package.sha256, writes)


def unpack_wheel(wheel: Path, folder: Path, prefixes: tuple[str, ...]) -> None:
    """Extract the files of a wheel whose names start with one of `prefixes`."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith(prefixes):
                archive.extract(name, folder)


def unpack_package(path: Path, package: DebianPackage, folder: Path) -> None:
    """Extract the files of a Debian package's folder into `folder`; links become files."""
    [(_, data)] = [(name, data) for name, data in _members(path) if name.startswith("data.tar")]
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive.getmembers():
            if not member.name.startswith(package.folder):
                continue
            content = archive.extractfile(member)
            if content is not None:  # a folder has none
                target = folder / member.name.removeprefix(package.folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content.read())


def _fetch(name: str, sha256: str, writes: Sequence[Callable[[Path], None]]) -> Path:
    path = cache_folder() / "runner" / "downloads" / name
    if path.is_file() and sha256_of(path) == sha256:
        return path
    failures = []
    for write in writes:
        try:
            with write_whole(path) as part:
                write(part)
                found = sha256_of(part)
                if found != sha256:
                    raise FetchError(  # noqa: TRY301 - write_whole then removes the file
                        f"it arrived with the sha256 {found}, expected {sha256}"
                    )
        except FetchError as error:
            failures.append(str(error))
        else:
            return path
    reasons = "; ".join(f"({number}) {reason}" for number, reason in enumerate(failures, start=1))
    raise RuntimeFailedError(
        f"{name} is not available: {reasons}.",
        remedy=f"Put the file at {path}, give this machine access to PyPI and to Debian's "
        "packages, or pass a bundle that was built elsewhere with --bundle.",
    )


def _download_wheel(wheel: Wheel, architecture: str, to: Path) -> None:
    requirement = f"{wheel.name}=={wheel.version}"
    options = [
        *("--platform", f"manylinux_2_28_{architecture}", "--implementation", "cp"),
        *("--python-version", "3.11", "--abi", "cp311"),
    ]
    with removed_when_done("mobiledeploy-") as folder:
        with step(f"Downloading {requirement} for {architecture}"):
            pip_download(requirement, folder, *options)
        found = sorted(folder.glob("*.whl"))
        if len(found) != 1:
            raise FetchError(f"{requirement}: pip downloaded {len(found)} wheels, expected 1")
        to.write_bytes(found[0].read_bytes())


def _members(package: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the content of each member of a Unix archive (ar)."""
    data = package.read_bytes()
    at = len(b"!<arch>\n")
    while at < len(data):
        name, size = data[at : at + 16].decode().strip(), int(data[at + 48 : at + 58])
        yield name.rstrip("/"), data[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
