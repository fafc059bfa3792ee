"""Describe the machine in raw form; `mobiledeploy.devices.host` interprets it."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mobiledeploy.devices.request import Conditions, MachineReport

PROTOCOL = 3
X86 = frozenset({"x86_64", "amd64", "i686", "i386"})
_DISTRIBUTIONS = ("numpy", "onnxruntime", "executorch", "torch", "ai-edge-litert")


def describe() -> MachineReport:
    """Return the system's own description of this machine."""
    return {
        "protocol": PROTOCOL,
        "system": platform.system(),
        "architecture": platform.machine(),
        "os": platform.platform(),
        "python": platform.python_version(),
        "executable": sys.executable,
        "cores": available_cores(),
        "core_mhz": core_mhz(),
        "processor": _processor(),
        "hwcap": _hwcap(),
        "runtimes": {name: _version(name) for name in _DISTRIBUTIONS},
        "conditions": conditions(),
    }


def conditions(sys_root: str = "/sys") -> Conditions:
    """Return what the processor's speed depends on; None where the system does not report it.

    - "temperature_c": temperature of the hottest zone;
    - "frequency_mhz" and "max_frequency_mhz": current and highest frequency of the fastest core;
    - "governor": frequency governor of the first core;
    - "throttle_count": how often the kernel has throttled a core because of heat;
    - "throttled_now": a Raspberry Pi's flags: 1 under-voltage, 2 capped, 4 throttled, 8 hot.
    """
    cpus = f"{sys_root}/devices/system/cpu"
    counts = _numbers(cpus, "thermal_throttle/core_throttle_count")
    firmware = lines(f"{sys_root}/devices/platform/soc/soc:firmware/get_throttled")
    zones = f"{sys_root}/class/thermal"
    temperatures = [
        int(text) / 1000
        for zone in _listed(zones)
        if zone.startswith("thermal_zone")
        for text in lines(f"{zones}/{zone}/temp")[:1]
        if text.lstrip("-").isdigit()
    ]
    return {
        "temperature_c": max(temperatures, default=None),
        "frequency_mhz": _max_mhz(_numbers(cpus, "cpufreq/scaling_cur_freq")),
        "max_frequency_mhz": _max_mhz(_numbers(cpus, "cpufreq/cpuinfo_max_freq")),
        "governor": next(iter(lines(f"{cpus}/cpu0/cpufreq/scaling_governor")), None),
        "throttle_count": sum(counts) if counts else None,
        "throttled_now": int(firmware[0], 16) & 0xF if firmware else None,
    }


def core_mhz(sys_root: str = "/sys") -> dict[str, float]:
    """Return the highest frequency of each core in MHz, for cores whose system reports it."""
    cpus = f"{sys_root}/devices/system/cpu"
    found = [(core, _numbers(cpus, "cpufreq/cpuinfo_max_freq", [core])) for core in _cores(cpus)]
    return {core[3:]: numbers[0] / 1000 for core, numbers in found if numbers}


def _max_mhz(kilohertz: list[int]) -> float | None:
    return max(kilohertz) / 1000 if kilohertz else None


def _cores(cpus: str) -> list[str]:
    return [core for core in _listed(cpus) if core[3:].isdigit()]


def _numbers(cpus: str, name: str, cores: Sequence[str] = ()) -> list[int]:
    """Return the number in a file of each core that has it; of all cores by default."""
    texts = [text for core in cores or _cores(cpus) for text in lines(f"{cpus}/{core}/{name}")[:1]]
    return [int(text) for text in texts if text.isdigit()]


def _listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def lines(path: str) -> list[str]:
    """Return the lines of a file; none if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            return handle.read().splitlines()
    except OSError:
        return []


def products_saturate() -> bool:
    """Return whether ONNX Runtime's uint8 x int8 products may saturate at 16 bits.

    They do on x86 without VNNI (onnxruntime issue 12072). If the system does not report the
    processor's features, the answer is True: exact and slower.
    """
    if platform.machine().lower() not in X86:
        return False
    return "vnni" not in _processor().lower()


def _processor() -> str:
    """Return the system's own description of the processor."""
    return _sysctl() if platform.system() == "Darwin" else "\n".join(_cpuinfo())


def _cpuinfo() -> list[str]:
    """Return the first core's part of /proc/cpuinfo, and the board's lines at its end on ARM."""
    text = lines("/proc/cpuinfo")
    first = text[: text.index("")] if "" in text else text
    return first + [line for line in text[len(first) :] if line.startswith(("Model", "Hardware"))]


def _sysctl() -> str:
    command = ["/usr/sbin/sysctl", "machdep.cpu", "hw.optional"]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=10
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _hwcap() -> list[int] | None:
    """Return AT_HWCAP and AT_HWCAP2, in which Linux lists an ARM processor's features.

    Under QEMU they describe the emulated processor, while /proc/cpuinfo describes the host's.
    """
    if platform.system() != "Linux" or platform.machine() != "aarch64":
        return None
    getauxval = ctypes.CDLL(None).getauxval
    getauxval.restype, getauxval.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
    return [getauxval(16), getauxval(26)]


def available_cores() -> int:
    """Return how many cores this process may use; macOS has no affinity."""
    bound = getattr(os, "sched_getaffinity", None)
    return len(bound(0)) if bound else os.cpu_count() or 1


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
