"""What this machine's processor is, and what it can do for int8."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

X86 = frozenset({"x86_64", "amd64", "i686", "i386"})
ARM64 = frozenset({"aarch64", "arm64"})

# Feature -> how Linux's /proc/cpuinfo and macOS's sysctl spell it.
_LINUX_FLAGS = {
    "avx2": {"avx2"},
    "avx512": {"avx512f"},
    "vnni": {"avx512_vnni", "avx_vnni"},
    "dotprod": {"asimddp"},
    "i8mm": {"i8mm"},
}
_MACOS_FLAGS = {
    "avx2": {"avx2"},
    "avx512": {"avx512f"},
    "vnni": {"avx512vnni"},
    "dotprod": {"feat_dotprod"},
    "i8mm": {"feat_i8mm"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A processor.

    Attributes:
        architecture: As the kernel names it, for example "x86_64", "aarch64", "arm64".
        model: The processor's name, or "" where the system does not tell.
        cores: Logical cores that this process may use.
        features: Of "avx2", "avx512", "vnni", "dotprod", "i8mm", those it has; None where the
            system does not tell.
    """

    architecture: str
    model: str
    cores: int
    features: frozenset[str] | None

    @property
    def label(self) -> str:
        """Return one line for people."""
        return f"local ({self.model or 'unknown processor'}, {self.architecture})"


def describe_host() -> Host:
    """Return what this machine is."""
    macos = platform.system() == "Darwin"
    model, features = parse_sysctl(_macos_text()) if macos else parse_cpuinfo(_linux_text())
    return Host(
        architecture=platform.machine(), model=model, cores=_available_cores(), features=features
    )


def int8_caveat(host: Host) -> str:
    """Return what has to be known about int8 latencies and logits of this machine; "" on ARM."""
    if host.architecture.lower() not in X86:
        return ""
    caveat = (
        "These are latencies of an x86 processor. How much int8 gains here says nothing about a "
        "phone: ARM multiplies int8 with other instructions, at other widths."
    )
    if host.features is not None and "vnni" not in host.features:
        caveat += (
            " Without VNNI, ONNX Runtime's uint8 x int8 products saturate at 16 bits, so that "
            "logits differ from ARM's as well (onnxruntime issue 12072)."
        )
    return caveat


def parse_cpuinfo(text: str) -> tuple[str, frozenset[str] | None]:
    """Return the processor's name and features from Linux's /proc/cpuinfo.

    x86 has "model name" and "flags", ARM64 "Features" and, for want of a name, numbers of the
    implementer and the part.
    """
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    model = fields.get("model name") or fields.get("Model", "")
    if not model and "CPU part" in fields:
        model = f"ARM implementer {fields.get('CPU implementer')}, part {fields['CPU part']}"
    return model, _features(fields.get("flags") or fields.get("Features"), _LINUX_FLAGS)


def parse_sysctl(text: str) -> tuple[str, frozenset[str] | None]:
    """Return the processor's name and features from macOS's `sysctl machdep.cpu hw.optional`."""
    fields = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    words = " ".join(fields.get(f"machdep.cpu.{key}", "") for key in ("features", "leaf7_features"))
    on = [key.rsplit(".", 1)[-1] for key, value in fields.items() if value.strip() == "1"]
    model = fields.get("machdep.cpu.brand_string", "")
    return model, _features(" ".join([words, *on]) if fields else None, _MACOS_FLAGS)


def _features(words: str | None, flags: dict[str, set[str]]) -> frozenset[str] | None:
    if words is None:
        return None
    present = set(words.lower().split())
    return frozenset(feature for feature, names in flags.items() if names & present)


def _linux_text() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _macos_text() -> str:
    command = ["/usr/sbin/sysctl", "machdep.cpu", "hw.optional"]
    try:
        return subprocess.run(  # noqa: S603 - a constant argv
            command, capture_output=True, text=True, check=False, timeout=10
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _available_cores() -> int:
    # macOS does not let processes be bound to cores.
    bound = getattr(os, "sched_getaffinity", None)
    return len(bound(0)) if bound else os.cpu_count() or 1
