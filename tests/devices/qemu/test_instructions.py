"""Instruction counts under QEMU are exact and reproducible, and can gate CI."""

import json
import os
import subprocess
import sys

import networks
import pytest
from real_parts import program

from mobiledeploy.bench.baseline import compare
from mobiledeploy.bench.instructions import count_instructions, warnings_for
from mobiledeploy.bench.json_report import InstructionsResult, read_result
from mobiledeploy.cli import _run
from mobiledeploy.devices.agent import bundle
from mobiledeploy.devices.open import open_device
from mobiledeploy.devices.python_device import LocalDevice, split_command
from mobiledeploy.devices.qemu import plugin as qemu_plugin
from mobiledeploy.errors import RuntimeFailedError, UsageError
from mobiledeploy.export.write import export_onnx

HERE = f"exec:{sys.executable}"  # no QEMU, so nothing counts
LOOPS = 1_000_000
# `subs x0, x0, #1; b.ne .-4; ret`: two instructions per iteration, and one to return
COUNT_A_LOOP = """
import ctypes, mmap
from mobiledeploy.devices.agent.instructions import instructions_of
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(b"".join(word.to_bytes(4, "little") for word in (0xF1000400, 0x54FFFFE1, 0xD65F03C0)))
address = ctypes.addressof(ctypes.c_char.from_buffer(page))
loop = ctypes.CFUNCTYPE(None, ctypes.c_long)(address)
print(*instructions_of(lambda: loop(%d), rounds=3, warmup=1))
"""


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """A cache in which the plugin is compiled once."""
    program("cc", "gcc libc6-dev")
    folder = tmp_path_factory.mktemp("cache, with a comma")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOBILEDEPLOY_CACHE", str(folder))
        yield folder


def stdout(capsys):
    return " ".join(capsys.readouterr().out.split())


def stderr(capsys):
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.ci
def test_a_loop_of_known_length_is_counted_exactly(arm64):
    agent = bundle().decode().replace("sys.modules[name].main()", "")
    ran = subprocess.run(
        [*split_command(arm64("cortex-a76")), "-c", agent + COUNT_A_LOOP % LOOPS],
        env=os.environ | qemu_plugin.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    counts = [int(word) for word in ran.stdout.split()]
    assert len(counts) == 3
    # the rest are the instructions with which Python calls the loop
    assert all(0 < count - (2 * LOOPS + 1) < LOOPS / 100 for count in counts), counts


@pytest.mark.ci
def test_counts_are_reproducible_and_an_increase_fails_the_gate(arm64, tmp_path, capsys, cache):
    network = export_onnx(networks.quantized("v3-small"), tmp_path / "v3-small.onnx").path
    kept, again = tmp_path / "kept.json", tmp_path / "again.json"
    command = ["bench", str(network), "--count-instructions", "--device", arm64("cortex-a76")]
    assert _run([*command, "--json", str(kept)]) == 0
    assert len(list(cache.glob("qemu/*"))) == 1
    first = read_result(kept, InstructionsResult)
    [entry] = first.measurements
    assert len(entry.instructions) == 5
    assert (entry.outputs.values, entry.outputs.differing) == (20, 0)
    output = stdout(capsys)
    assert f"{entry.median_instructions:,.0f}" in output
    assert "0 of 20 outputs differ" in output

    cheaper = json.loads(kept.read_text())
    [old] = cheaper["measurements"]
    old["instructions"] = [round(count / 1.003) for count in old["instructions"]]
    kept.write_text(json.dumps(cheaper))
    gate = ["--baseline", str(kept), "--max-regress", "0.1%"]
    assert _run([*command, *gate, "--json", str(again)]) == 1
    assert "More instructions than the baseline by more than 0.1%: v3-small.onnx" in stderr(capsys)

    [verdict] = compare(read_result(again, InstructionsResult), first, max_regress=0.001).verdicts
    assert verdict.passed
    assert verdict.ratio == pytest.approx(1, abs=0.001)


@pytest.mark.ci
def test_counting_fails_if_outputs_differ(arm64, float_onnx, capsys):
    """Float logits differ in their last bits; this limit does not allow it."""
    device = ["--device", arm64("cortex-a76"), "--count-instructions", "--runs", "2"]
    assert _run(["bench", str(float_onnx), *device, "--min-sqnr", "1000"]) == 1
    assert "differ from this machine's" in stderr(capsys)


@pytest.mark.parametrize("uri", ["local", "ssh://pi", "adb://"])
def test_counting_needs_an_emulator(uri, float_onnx, capsys):
    assert _run(["bench", str(float_onnx), "--count-instructions", "--device", uri]) == 2
    assert f"Instructions cannot be counted on {uri}" in stderr(capsys)


@pytest.mark.parametrize(
    ("compiler", "message"),
    [("/nowhere/cc", "No such file"), ("cc -include /nowhere/plugin.h", "/nowhere/plugin.h")],
)
def test_a_failed_compilation_leaves_no_files(compiler, message, monkeypatch, tmp_path):
    monkeypatch.setenv("CC", compiler)
    monkeypatch.setenv("MOBILEDEPLOY_CACHE", str(tmp_path))
    with pytest.raises(RuntimeFailedError, match="could not be compiled") as caught:
        open_device(HERE, counts_instructions=True)
    assert message in caught.value.message
    assert "Debian: gcc and libc6-dev" in caught.value.remedy
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": 2}, "with 2 threads"),
        ({"duration_s": 3.0}, "do not apply to counting"),
        ({"cool_down_s": 3.0}, "do not apply to counting"),
        ({"wait_below_c": 40.0}, "do not apply to counting"),
        ({"runs": 0}, "runs is 0"),
        ({"warmup": -1}, "warmup is -1"),
    ],
)
def test_options_that_do_not_apply_to_counting_are_refused(options, message, float_onnx):
    with pytest.raises(UsageError, match=message):
        count_instructions([float_onnx], device=LocalDevice(), **options)
    with pytest.raises(UsageError, match="nothing to count"):
        count_instructions([], device=LocalDevice())


def test_varying_counts_cause_a_warning():
    assert warnings_for([1000, 1009, 1005]) == ()
    assert "differ by 2.0%" in warnings_for([1000, 1020])[0]
