"""Check whether a machine can export or run networks, and how to fix what it lacks.

Libraries are not imported into this process: their versions come from the packages' metadata, and
each is imported in a subprocess, which it may crash.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from mobiledeploy.devices.agent.machine import X86
from mobiledeploy.devices.host import ARM64, Host, describe_host
from mobiledeploy.utils.progress import track

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

State = Literal["ok", "missing", "broken"]

DISTRIBUTION = "mobiledeploy"
# library that mobiledeploy needs -> an import that loads its native code
LIBRARIES: Mapping[str, str] = {
    "torch": "import torch",
    "torchao": "import torchao.quantization.pt2e",
    # only XNNPACK makes it useful
    "executorch": "from mobiledeploy.devices.agent.runtimes import executorch_bindings as load; "
    "assert load()._is_available('XnnpackBackend'), 'XnnpackBackend is not available'",
    "onnx": "import onnx",
    "onnxscript": "import onnxscript",
    "onnx-ir": "import onnx_ir",
    "onnxruntime": "import onnxruntime",
    "ai-edge-litert": "import ai_edge_litert.interpreter",
    "numpy": "import numpy",
    "scipy": "import scipy.special",
    "pydantic": "import pydantic",
    "pillow": "import PIL.Image",
    "safetensors": "import safetensors",
    "matplotlib": "import matplotlib.ft2font",
}
_RELEASED_TOGETHER = ("torch", "torchao", "executorch")
_IMPORT_TIMEOUT_S = 120
MIN_FREE_BYTES = 500 * 2**20
_REINSTALL = f"Reinstall {DISTRIBUTION} into a new virtual environment."


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The result of one check.

    Attributes:
        name: The thing that was checked.
        state: "missing" means not there, "broken" means there but not usable.
        found: What was found.
        remedy: How to fix it; empty if nothing is wrong.
        required: Whether `mobiledeploy export` needs it.
    """

    name: str
    state: State
    found: str
    remedy: str = ""
    required: bool = False

    @property
    def fatal(self) -> bool:
        """Return whether this makes exporting impossible."""
        return self.required and self.state != "ok"


def examine() -> tuple[Check, ...]:
    """Check Python, the libraries, the processor and the optional programs."""
    return (
        check_python(),
        *check_libraries(),
        *check_other_libraries(),
        check_versions(),
        check_processor(describe_host()),
        *(check_program(name) for name in PROGRAMS),
    )


def examine_storage(cache_folder: Path, weights: Mapping[str, Path | None]) -> tuple[Check, ...]:
    """Check the cache and the weights in it.

    Args:
        cache_folder: Folder of the cached weights.
        weights: Model name to the path of its cached ImageNet weights, None if they are not cached.
    """
    return (*check_cache(cache_folder), *check_weights(weights))


def examine_device(host: Host) -> tuple[Check, ...]:
    """Check what a device can run, and what its latency depends on."""
    has = [f"{name} {version}" for name, version in host.runtimes.items() if version]
    python = f", Python {host.python}" if host.python else ""
    return (
        Check(name="system", state="ok", found=f"{host.os}{python}", required=True),
        check_processor(host),
        _check_runtime(".onnx", ("numpy", "onnxruntime"), "onnxruntime_perf_test", host),
        _check_runtime(".pte", ("numpy", "executorch", "torch"), "executor_runner", host),
        _check_runtime(".tflite", ("numpy", "ai-edge-litert"), "", host),
        Check(name="libraries", state="ok", found=", ".join(has) or "none"),
        check_speed(host),
    )


def _check_runtime(suffix: str, needed: tuple[str, ...], native: str, host: Host) -> Check:
    if not host.python:
        return _check_native(suffix, needed[1], native, host)
    lacking = [name for name in needed if not host.runtimes.get(name)]
    if lacking:
        return Check(
            name=suffix,
            state="missing",
            found=f"cannot be run: {', '.join(lacking)} not installed",
            remedy="`mobiledeploy device setup` installs what is missing (--executorch for .pte,"
            " --litert for .tflite).",
        )
    return Check(name=suffix, state="ok", found=f"run by {needed[1]}")


def _check_native(suffix: str, runtime: str, built: str, host: Host) -> Check:
    """Check what runs an artifact where there is no Python: the native runner, or a built one."""
    version, path = host.runtimes.get(runtime), host.runtimes.get(built)
    if version or path:
        found = f"run by {path or f'{runtime} {version} in the native runner'}"
        return Check(name=suffix, state="ok", found=found)
    return Check(
        name=suffix,
        state="missing",
        found="cannot be run: there is no runner for it",
        remedy="`mobiledeploy device setup` installs the native runner."
        if built
        else "Use the .onnx or .pte of the same network: all hold the same integers.",
    )


def check_speed(host: Host) -> Check:
    """Check the governor, the clock and the temperature, which decide how fast a device is."""
    now = host.conditions
    texts = {
        "governor": "governor {}",
        "frequency_mhz": "{:.0f} MHz now",
        "max_frequency_mhz": "{:.0f} MHz maximum",
        "temperature_c": "{:.0f} °C",
        "throttled_now": "get_throttled {:#x}",
    }
    known = [text.format(now[name]) for name, text in texts.items() if now.get(name) is not None]
    found = ", ".join(known) or "not reported by the system"
    if now.get("throttled_now"):
        remedy = "The device throttles. Cool it, or use a stronger power supply."
        return Check(name="speed", state="broken", found=found, remedy=remedy)
    if now.get("governor") not in (None, "performance"):
        remedy = "Set the governor to `performance` for stable latency (cpufreq-set, as root)."
        return Check(name="speed", state="ok", found=found, remedy=remedy)
    return Check(name="speed", state="ok", found=found)


def check_python() -> Check:
    """Compare the version of Python with the one that the package requires."""
    found = platform.python_version()
    needed = _python_needed()
    if SpecifierSet(needed).contains(found, prereleases=True):
        return Check(name="python", state="ok", found=found, required=True)
    return Check(
        name="python",
        state="broken",
        found=f"{found}, expected {needed}",
        remedy="Create the virtual environment with such a Python.",
        required=True,
    )


def check_libraries() -> tuple[Check, ...]:
    """Check the version of each library, and whether it can be imported."""
    needed = _requirements(DISTRIBUTION)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        checks = pool.map(lambda name: _check_library(name, needed.get(name)), LIBRARIES)
        return tuple(track(checks, "Importing libraries", len(LIBRARIES)))


def check_other_libraries() -> tuple[Check, ...]:
    """Check the versions of the libraries in pure Python: one check if all are right."""
    others = {n: each for n, each in _requirements(DISTRIBUTION).items() if n not in LIBRARIES}
    checks = [_check_version(name, needed) for name, needed in others.items()]
    wrong = tuple(check for check in checks if check.state != "ok")
    if wrong or not checks:
        return wrong
    found = ", ".join(f"{check.name} {check.found}" for check in checks)
    return (Check(name="others", state="ok", found=found, required=True),)


def _check_library(name: str, needed: Requirement | None) -> Check:
    check = _check_version(name, needed)
    if check.state == "ok" and (failure := import_failure(LIBRARIES[name])):
        return Check(
            name=name,
            state="broken",
            found=f"{check.found}, but it cannot be imported: {failure}",
            remedy=f"{_REINSTALL} Another build of this library may be in the way.",
            required=True,
        )
    return check


def _check_version(name: str, needed: Requirement | None) -> Check:
    found = _version(name)
    if not found:
        wanted = needed or name
        return Check(
            name=name,
            state="missing",
            found=f"not installed, expected {wanted}",
            remedy=f"pip install '{wanted}'",
            required=True,
        )
    if needed and not needed.specifier.contains(found, prereleases=True):
        return Check(
            name=name,
            state="broken",
            found=f"{found}, expected {needed.specifier}",
            remedy=f"pip install '{needed}'",
            required=True,
        )
    return Check(name=name, state="ok", found=found, required=True)


def import_failure(statement: str, *, timeout_s: float = _IMPORT_TIMEOUT_S) -> str:
    """Run an import in a subprocess; return the last line of its error, "" if it succeeds."""
    command = [sys.executable, "-W", "ignore", "-c", statement]
    try:
        done = subprocess.run(  # noqa: S603 - our own argv
            command, capture_output=True, text=True, check=False, timeout=timeout_s
        )
    except subprocess.TimeoutExpired:
        return f"did not finish within {timeout_s:g} s"
    if done.returncode == 0:
        return ""
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"the process exited with {done.returncode}"


def check_versions() -> Check:
    """Check whether torch, torchao and executorch accept one another's versions.

    They are released in step. Versions that were not built together may import, and then write a
    program that the phone's runtime rejects.
    """
    clashes = [
        f"{library} needs {requirement}, found {found}"
        for library in _RELEASED_TOGETHER
        for name, requirement in _requirements(library).items()
        if name in _RELEASED_TOGETHER
        and not requirement.specifier.contains(found := _version(name), prereleases=True)
    ]
    versions = ", ".join(f"{name} {_version(name) or 'missing'}" for name in _RELEASED_TOGETHER)
    if not clashes and all(_version(name) for name in _RELEASED_TOGETHER):
        return Check(name="versions", state="ok", found=versions, required=True)
    return Check(
        name="versions",
        state="broken",
        found="; ".join(clashes) or versions,
        remedy=_REINSTALL,
        required=True,
    )


def check_processor(host: Host) -> Check:
    """Describe the processor's int8 instructions and what they mean for measurements."""
    features = "unknown features" if host.features is None else _feature_list(host.features)
    found = f"{host.model or 'unknown'}, {host.architecture}, {host.cores} cores: {features}. "
    if host.features is None:
        return Check(name="processor", state="ok", found=found.rstrip())
    architecture = host.architecture.lower()
    meaning = ""
    if architecture in X86 and "vnni" in host.features:
        meaning = "With VNNI, int8 logits are exact. Latency does not predict that of a phone."
    elif architecture in X86:
        meaning = (
            "Without VNNI, mobiledeploy runs ONNX Runtime with session.x64quantprecision=1, and so "
            "must an app: int8 logits are then exact, but slower than with VNNI."
        )
    elif architecture in ARM64:
        meaning = (
            "Int8 uses dot-product instructions."
            if host.features & {"dotprod", "i8mm"}
            else "Without dot-product instructions, int8 gains less than on newer processors."
        )
    return Check(name="processor", state="ok", found=(found + meaning).rstrip())


def _feature_list(features: Iterable[str]) -> str:
    return ", ".join(sorted(features)) or "no int8 instructions"


# program -> (its file names, when it is needed and how to install it)
PROGRAMS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "adb": (
        ("adb",),
        "Only needed for Android devices: install Android's platform-tools.",
    ),
    "ssh": (
        ("ssh",),
        "Only needed for boards such as a Raspberry Pi: install the OpenSSH client.",
    ),
    "qemu": (
        ("qemu-aarch64", "qemu-aarch64-static"),
        "Only needed to run ARM64 code on this machine: install QEMU (Debian: qemu-user).",
    ),
}


def check_program(name: str) -> Check:
    """Check whether a program is on the PATH."""
    commands, remedy = PROGRAMS[name]
    found = next((path for path in map(shutil.which, commands) if path), None)
    if found:
        return Check(name=name, state="ok", found=found)
    return Check(name=name, state="missing", found="not on the PATH", remedy=remedy)


def check_cache(folder: Path) -> tuple[Check, ...]:
    """Check whether weights can be cached, and whether there is space for them."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    writable = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    place = Check(
        name="cache",
        state="ok" if writable else "broken",
        found=f"{folder}" if writable else f"{folder} cannot be written to",
        remedy="" if writable else "Set MOBILEDEPLOY_CACHE to a writable folder.",
    )
    free = shutil.disk_usage(existing).free
    room = free >= MIN_FREE_BYTES
    return place, Check(
        name="disk",
        state="ok" if room else "broken",
        found=f"{free / 2**30:.1f} GiB free at {existing}",
        remedy="" if room else f"Free at least {MIN_FREE_BYTES // 2**20} MiB of disk space.",
        required=True,
    )


def check_weights(weights: Mapping[str, Path | None]) -> tuple[Check, ...]:
    """Check which ImageNet weights are in the cache."""
    return tuple(
        Check(name=f"weights {name}", state="ok", found=path.name)
        if path
        else Check(
            name=f"weights {name}",
            state="missing",
            found="not in the cache",
            remedy=f"`mobiledeploy export {name}` downloads them.",
        )
        for name, path in weights.items()
    )


def _version(distribution: str) -> str:
    """Return the version of an installed distribution, "" if it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _python_needed() -> str:
    """Return the versions of Python that the package accepts; "" if it is not installed."""
    try:
        metadata = importlib.metadata.metadata(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return ""
    return str(metadata.json.get("requires_python", ""))


def _requirements(distribution: str) -> dict[str, Requirement]:
    """Return what a distribution requires on this platform, without extras, by name."""
    try:
        texts = importlib.metadata.requires(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    requirements = [Requirement(text) for text in texts]
    return {
        requirement.name: requirement
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    }
