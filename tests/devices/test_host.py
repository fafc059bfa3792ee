"""Descriptions of machines, from recordings of real ones."""

import os
import sys

import pytest

from mobiledeploy.devices.agent import machine
from mobiledeploy.devices.agent import runtimes as agent_runtimes
from mobiledeploy.devices.host import (
    Host,
    describe_host,
    host_from_report,
    int8_caveat,
    parse_cpuinfo,
    parse_sysctl,
)
from mobiledeploy.devices.open import open_device, run_artifact
from mobiledeploy.runtimes import onnxruntime as onnxruntime_runner

EPYC = """processor	: 0
vendor_id	: AuthenticAMD
model name	: AMD EPYC
flags		: fpu sse2 avx2 avx512f avx512bw avx512_vnni

processor	: 1
model name	: another one
flags		: fpu
"""
ALDER_LAKE = "model name\t: 12th Gen Intel(R) Core(TM) i7\nflags\t\t: fpu avx2 avx_vnni\n"
HASWELL = "model name\t: Intel(R) Core(TM) i5-4460\nflags\t\t: fpu avx avx2\n"
RASPBERRY_PI_5 = """processor	: 0
BogoMIPS	: 108.00
Features	: fp asimd aes pmull sha1 sha2 crc32 atomics fphp asimdhp asimddp
CPU implementer	: 0x41
CPU architecture: 8
CPU part	: 0xd0b

Model		: Raspberry Pi 5 Model B Rev 1.0
"""
GRAVITON_3 = (
    "Features\t: fp asimd asimddp sve i8mm bf16\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n"
)
APPLE_M2 = """machdep.cpu.cores_per_package: 8
machdep.cpu.brand_string: Apple M2
hw.optional.floatingpoint: 1
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_I8MM: 1
hw.optional.arm.FEAT_SME: 0
"""
APPLE_M1 = APPLE_M2.replace("M2", "M1").replace("I8MM: 1", "I8MM: 0")
MAC_PRO = """machdep.cpu.brand_string: Intel(R) Xeon(R) W-3245
machdep.cpu.features: FPU SSE2 AVX1.0
machdep.cpu.leaf7_features: AVX2 AVX512F AVX512VNNI
"""


@pytest.mark.parametrize(
    ("text", "model", "features"),
    [
        (EPYC, "AMD EPYC", {"avx2", "avx512", "vnni"}),
        (ALDER_LAKE, "12th Gen Intel(R) Core(TM) i7", {"avx2", "vnni"}),
        (HASWELL, "Intel(R) Core(TM) i5-4460", {"avx2"}),
        (RASPBERRY_PI_5, "Raspberry Pi 5 Model B Rev 1.0", {"dotprod"}),
        (GRAVITON_3, "ARM implementer 0x41, part 0xd40", {"dotprod", "i8mm"}),
    ],
)
def test_cpuinfo_is_parsed(text, model, features):
    assert parse_cpuinfo(text) == (model, features)


@pytest.mark.parametrize(
    ("text", "model", "features"),
    [
        (APPLE_M2, "Apple M2", {"dotprod", "i8mm"}),
        (APPLE_M1, "Apple M1", {"dotprod"}),
        (MAC_PRO, "Intel(R) Xeon(R) W-3245", {"avx2", "avx512", "vnni"}),
    ],
)
def test_sysctl_is_parsed(text, model, features):
    assert parse_sysctl(text) == (model, features)


@pytest.mark.parametrize("parse", [parse_cpuinfo, parse_sysctl])
def test_unknown_features_are_none(parse):
    assert parse("") == ("", None)


def test_this_machine_is_described():
    host = describe_host()
    assert host.architecture
    assert 1 <= host.cores <= os.cpu_count()
    assert host.architecture in host.label


@pytest.mark.parametrize(
    ("system", "model"), [("Linux", "AMD EPYC"), ("Darwin", "Apple M2"), ("FreeBSD", "AMD EPYC")]
)
def test_each_system_has_its_own_source(system, model, monkeypatch):
    monkeypatch.setattr(machine.platform, "system", lambda: system)
    monkeypatch.setattr(machine, "_cpuinfo", EPYC.splitlines)
    monkeypatch.setattr(machine, "_sysctl", lambda: APPLE_M2)
    assert describe_host().model == model
    assert model in describe_host().label


def report(**fields):
    return machine.describe() | {"system": "Linux", "architecture": "aarch64"} | fields


@pytest.mark.parametrize(
    ("hwcap", "features"),
    [
        ([0, 0], set()),
        ([1 << 20, 0], {"dotprod"}),
        ([1 << 20, 1 << 13], {"dotprod", "i8mm"}),
        ([1 << 13, 1 << 20], set()),  # the right bits in the wrong words
    ],
)
def test_hwcap_takes_precedence_over_cpuinfo(hwcap, features):
    host = host_from_report("exec:qemu", report(hwcap=hwcap, processor=RASPBERRY_PI_5))
    assert host.features == features
    assert (host.model, host.emulated) == ("Raspberry Pi 5 Model B Rev 1.0", False)


def test_arm_with_an_x86_cpuinfo_is_emulated():
    host = host_from_report("exec:qemu", report(hwcap=[0, 0], processor=EPYC))
    assert host.emulated
    assert host.label == "exec:qemu (emulated on AMD EPYC, aarch64)"
    assert "latencies are not" in int8_caveat(host)


def test_cores_respect_the_affinity_of_the_process(monkeypatch):
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: {1, 5, 7}, raising=False)
    assert describe_host().cores == 3
    monkeypatch.delattr(machine.os, "sched_getaffinity")
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 6)
    assert describe_host().cores == 6
    monkeypatch.setattr(machine.os, "cpu_count", lambda: None)
    assert describe_host().cores == 1


def test_a_processor_without_a_name_is_labelled_unknown():
    assert host("riscv64", None).label == "local (unknown processor, riscv64)"


def host(architecture, features):
    return Host(architecture=architecture, model="", cores=1, features=features)


def test_arm_has_no_caveat():
    assert int8_caveat(host("aarch64", frozenset())) == ""
    assert int8_caveat(host("arm64", frozenset())) == ""


def test_x86_has_a_caveat_and_x86_without_vnni_has_two():
    assert "saturate" in int8_caveat(host("x86_64", frozenset({"avx2"})))
    with_vnni = int8_caveat(host("AMD64", frozenset({"vnni"})))
    assert "does not predict phone latency" in with_vnni
    assert "saturate" not in with_vnni
    assert "saturate" not in int8_caveat(host("x86_64", None))


@pytest.mark.parametrize(
    ("architecture", "flags", "saturates"),
    [
        ("x86_64", "flags : avx2 avx512f", True),
        ("x86_64", "flags : avx2 avx512_vnni", False),
        ("AMD64", "flags : avx2 avx_vnni", False),
        ("x86_64", "", True),
        ("aarch64", "Features : fp asimd", False),
    ],
)
def test_products_saturate_on_x86_unless_vnni_is_reported(
    architecture, flags, saturates, monkeypatch
):
    monkeypatch.setattr(machine.platform, "machine", lambda: architecture)
    monkeypatch.setattr(machine.platform, "system", lambda: "Linux")
    monkeypatch.setattr(machine, "lines", lambda _path: [flags, ""])
    assert machine.products_saturate() is saturates


@pytest.mark.parametrize(("saturates", "entry"), [(True, "1"), (False, None)])
def test_sessions_avoid_kernels_that_saturate(saturates, entry, monkeypatch):
    for module in (agent_runtimes, onnxruntime_runner):
        monkeypatch.setattr(module, "products_saturate", lambda: saturates)
    here = onnxruntime_runner.session_options(threads=1, optimize=True)
    there = agent_runtimes.OnnxRuntime._options(None, "", 1)
    for options in (here, there):
        if entry is None:
            with pytest.raises(RuntimeError, match="does not have configuration"):
                options.get_session_config_entry("session.x64quantprecision")
        else:
            assert options.get_session_config_entry("session.x64quantprecision") == entry


def test_the_host_is_read_from_the_first_session(float_onnx, images, tmp_path):
    starts = tmp_path / "starts"
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho >> {starts}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    with open_device(f"exec:{python}") as device:
        run_artifact(device, float_onnx, images)
        assert device.host.uri == f"exec:{python}"
        assert device.host.runtimes["onnxruntime"]
    assert starts.read_text() == "\n"
