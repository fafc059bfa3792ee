"""What a machine is, and what its processor can do for int8.

In: what the agent (or a phone's shell) reports, as the system spells it. Out: a `Host`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mobiledeploy.devices.agent.machine import X86, describe

if TYPE_CHECKING:
    from collections.abc import Mapping

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


# Linux's <asm/hwcap.h> for arm64: feature -> (which of the two words, bit).
_HWCAP = {"dotprod": (0, 20), "i8mm": (1, 13)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A machine.

    Attributes:
        architecture: As the kernel names it, for example "x86_64", "aarch64", "arm64".
        model: The processor's name, or "" where the system does not tell.
        cores: Logical cores that a process may use.
        features: Of "avx2", "avx512", "vnni", "dotprod", "i8mm", those it has; None where the
            system does not tell.
        place: Where it is: "local", or the device's URI.
        os: The system's name and version.
        python: The version of the interpreter there; "" where there is none.
        emulated: Whether its processor is a program on another one.
        runtimes: Name and version of what can be run there; None where it is not installed.
        conditions: What its speed depends on (`agent.machine.conditions`).
    """

    architecture: str
    model: str
    cores: int
    features: frozenset[str] | None
    place: str = "local"
    os: str = ""
    python: str = ""
    emulated: bool = False
    runtimes: Mapping[str, str | None] = field(default_factory=dict)
    conditions: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Return one line for people."""
        return f"{self.place} ({self.model or 'unknown processor'}, {self.architecture})"


def describe_host() -> Host:
    """Return what this machine is."""
    return host_from("local", describe())


def host_from(place: str, report: Mapping[str, Any]) -> Host:
    """Read what the agent reports (`agent.machine.describe`)."""
    parse = parse_sysctl if report["system"] == "Darwin" else parse_cpuinfo
    model, features = parse(report["processor"])
    emulated = False
    if report["hwcap"] is not None:
        # An emulator passes on its own machine's /proc/cpuinfo, but not its processor's word.
        features = frozenset(
            f for f, (word, bit) in _HWCAP.items() if report["hwcap"][word] >> bit & 1
        )
        emulated = "vendor_id" in report["processor"]
        model = f"emulated on {model}" if emulated else model
    return Host(
        architecture=report["architecture"],
        model=model,
        cores=report["cores"],
        features=features,
        place=place,
        os=report["os"],
        python=report["python"],
        emulated=emulated,
        runtimes=report["runtimes"],
        conditions=report["conditions"],
    )


def int8_caveat(host: Host) -> str:
    """Return what has to be known about a machine's int8 latencies and logits; "" on ARM."""
    if host.emulated:
        return "The processor is emulated: its logits are a real one's, its latencies are not."
    if host.architecture.lower() not in X86:
        return ""
    caveat = (
        "These are latencies of an x86 processor. How much int8 gains here says nothing about a "
        "phone: ARM multiplies int8 with other instructions, at other widths."
    )
    if host.features is not None and "vnni" not in host.features:
        caveat += (
            " Without VNNI, ONNX Runtime's uint8 x int8 products would saturate at 16 bits: it "
            "runs with session.x64quantprecision=1, exact and slower."
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
