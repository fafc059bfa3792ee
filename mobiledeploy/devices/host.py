"""Describe a machine, and what its processor can do with int8."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mobiledeploy.devices.agent.machine import X86, describe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mobiledeploy.devices.request import MachineReport

ARM64 = frozenset({"aarch64", "arm64"})

# Feature -> its names in Linux's /proc/cpuinfo and in macOS's sysctl.
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
    """A machine that runs artifacts.

    Attributes:
        architecture: The kernel's name for it, for example "x86_64", "aarch64", "arm64".
        model: The processor's name; "" where the system does not report it.
        cores: Logical cores that a process may use.
        core_mhz: The highest frequency of each core, in MHz; empty where the system does not
            report it.
        features: Which of "avx2", "avx512", "vnni", "dotprod" and "i8mm" the processor has; None
            where the system does not report them.
        uri: "local", or the device's URI.
        os: The system's name and version.
        python: The version of the device's interpreter; "" where there is none.
        emulated: Whether the processor is emulated by another one.
        runtimes: Versions of the packages that artifacts need, or paths of native runners; None
            where one is missing.
        conditions: What the processor's speed depends on (`agent.machine.conditions`).
    """

    architecture: str
    model: str
    cores: int
    features: frozenset[str] | None
    uri: str = "local"
    os: str = ""
    python: str = ""
    emulated: bool = False
    runtimes: Mapping[str, str | None] = field(default_factory=dict)
    conditions: Mapping[str, object] = field(default_factory=dict)
    core_mhz: Mapping[int, float] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Return the device and its processor in one line."""
        return f"{self.uri} ({self.model or 'unknown processor'}, {self.architecture})"


def describe_host() -> Host:
    """Return the description of this machine."""
    return host_from_report("local", describe())


def host_from_report(uri: str, report: MachineReport) -> Host:
    """Return the machine that the agent describes (`agent.machine.describe`)."""
    parse = parse_sysctl if report["system"] == "Darwin" else parse_cpuinfo
    model, features = parse(report["processor"])
    emulated = False
    hwcap = report["hwcap"]
    if hwcap is not None:
        # QEMU passes on the /proc/cpuinfo of the machine it runs on, but its own hwcap words.
        features = frozenset(f for f, (word, bit) in _HWCAP.items() if hwcap[word] >> bit & 1)
        below = "vendor_id" in report["processor"]
        emulated = below or model.startswith("QEMU")  # as devices/qemu/processor.py names it
        model = f"emulated on {model}" if below else model
    return Host(
        architecture=report["architecture"],
        model=model,
        cores=report["cores"],
        features=features,
        uri=uri,
        os=report["os"],
        python=report["python"],
        emulated=emulated,
        runtimes=report["runtimes"],
        conditions=dict(report["conditions"]),
        core_mhz={int(core): mhz for core, mhz in report["core_mhz"].items()},
    )


def int8_caveat(host: Host) -> str:
    """Return what limits the meaning of a machine's int8 figures; "" on ARM."""
    if host.emulated:
        return "The processor is emulated: its logits are valid, its latencies are not."
    if host.architecture.lower() not in X86:
        return ""
    caveat = "x86 latency does not predict phone latency: x86 uses different int8 instructions."
    if host.features is not None and "vnni" not in host.features:
        caveat += (
            " Without VNNI, ONNX Runtime's uint8 x int8 products would saturate at 16 bits. It "
            "runs with session.x64quantprecision=1 instead, which is exact and slower."
        )
    return caveat


def parse_cpuinfo(text: str) -> tuple[str, frozenset[str] | None]:
    """Return the processor's name and features from Linux's /proc/cpuinfo.

    x86 has the fields "model name" and "flags". ARM64 has "Features"; where it has no name, the
    numbers of the implementer and the part stand in.
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
