"""Copies of the native runner with a fault in it, and the places where tests put them."""

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from faults import Place

from mobiledeploy.devices.native import sources
from mobiledeploy.devices.native.bundle import SUMS, Bundle, _sums, runner_folder, runner_key

_STEPS = {"AT_LOAD": "nothing", "AT_CREATE": "fine", "ACT": "nothing", "AT_RUN": "fine"}


def built_folder(cache: Path) -> Path:
    """Return the folder of this machine's runner in a cache."""
    return cache / "runner" / f"{platform.machine()}-{runner_key()}"


def link_bundle(cache: Path, target: Path) -> Bundle:
    """Link this machine's runner in a cache to a new folder; return it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(built_folder(cache), target, copy_function=os.link)
    return Bundle.open(target)


def replace_file(bundle: Bundle, name: str, content: bytes) -> None:
    """Replace a file of a linked bundle, and list the sha256 again."""
    for changed in (name, SUMS):
        (bundle.folder / changed).unlink()
    (bundle.folder / name).write_bytes(content)
    (bundle.folder / name).chmod(0o755)
    (bundle.folder / SUMS).write_text(_sums(bundle.folder))


def break_runtime(bundle: Bundle, cache: Path, work: Path, *flags: str, **steps: str) -> None:
    """Put a library in front of ONNX Runtime that fails at a step; see `fault_library.c`."""
    package = cache / "runner" / "downloads" / sources.ONNXRUNTIME_HEADERS.path.rpartition("/")[2]
    sources.unpack_package(package, sources.ONNXRUNTIME_HEADERS, work / "include")
    library = bundle.folder / "libonnxruntime.so.1"
    library.rename(bundle.folder / "real")
    names = [f"-D{name}={value}" for name, value in (_STEPS | steps).items()]
    source = Path(__file__).with_name("fault_library.c")
    argv = ["cc", "-shared", "-fPIC", "-w", f"-I{work / 'include'}", *names, *flags]
    subprocess.run([*argv, str(source), "-o", str(library), "-ldl"], check=True)


@dataclass
class NativePlace(Place):
    """Also the cache with the runner, a cache of the test's own, and the runners' folder on ssh."""

    built: Path
    cache: Path
    home: Path

    def in_cache(self) -> Bundle:
        """Link the runner into the test's cache, which exec devices use."""
        return link_bundle(self.built, built_folder(self.cache))

    def over_ssh(self) -> Bundle:
        """Link the runner to its place on the ssh server."""
        return link_bundle(self.built, self.home / runner_folder())

    def on_phone(self, phone) -> Bundle:
        """Link the runner to its place on a phone."""
        return link_bundle(self.built, phone.folder / "mobiledeploy" / runner_folder())

    def breaks(self, bundle, *flags, **steps):
        break_runtime(bundle, self.built, self.tools, *flags, **steps)

    def exec(self, before=""):
        return [f"exec:{before} env TMPDIR={self.tmp}".replace(": ", ":"), "--runner", "native"]
