"""Over the real adb client, against a daemon that speaks its protocol."""

import importlib
import json

import numpy as np
import pytest

from mobiledeploy.bench.measure import UNCHECKED, measure
from mobiledeploy.cli import _run
from mobiledeploy.devices.android.adb import choose
from mobiledeploy.devices.android.runners import ExecutorRunner, OnnxRuntimePerfTest, runners_for
from mobiledeploy.devices.open import open_device, run_artifact
from mobiledeploy.errors import RuntimeFailedError, UsageError


def test_a_phone_describes_itself(phone):
    with open_device("adb://") as device:
        host = device.host
    assert host.label == f"adb:// (Google Pixel 9, {host.architecture})"
    assert host.os == "Android 16 (arm64-v8a)"
    assert host.cores >= 1
    assert set(host.conditions) >= {"temperature_c", "frequency_mhz", "governor"}
    assert phone.serial


def test_a_phone_computes_what_this_machine_does_whatever_the_file_is_called(
    phone, runners, int8_pte, images, tmp_path
):
    strange = tmp_path / "mobile net \"v2\" 'ä' $HOME;`id`.pte"
    strange.write_bytes(int8_pte.read_bytes())
    with open_device(f"adb://{phone.serial}", runners=runners) as device:
        there = run_artifact(device, strange, images[:2])
    with open_device() as here:
        assert np.array_equal(there, run_artifact(here, int8_pte, images[:2]))


@pytest.fixture
def one_session(monkeypatch):
    """One for each artifact: every block of inferences loads its runtime anew."""
    module = importlib.import_module("mobiledeploy.bench.measure")
    monkeypatch.setattr(module, "MIN_SESSIONS", 1)


@pytest.mark.usefixtures("one_session")
def test_a_bench_on_a_phone_checks_what_executor_runner_computes(phone, runners, int8_pte):
    with open_device("adb://", runners=runners) as device:
        [found] = measure([int8_pte], device=device, runs=3, warmup=1)
    assert found.runtime == "executor_runner"
    assert len(found.times_ms) == 3
    assert min(*found.times_ms, found.load_ms, found.first_ms) > 0
    assert found.peak_memory_bytes is None
    assert found.device.startswith("adb:// (Google Pixel 9")
    assert len(found.conditions) == 1
    assert (found.outputs.values, found.outputs.differing) == (2 * 10, 0)
    assert UNCHECKED not in found.warnings
    assert phone.serial


@pytest.mark.usefixtures("one_session")
def test_what_onnxruntime_perf_test_computes_is_not_known_and_that_is_said(
    phone, runners, float_onnx, int8_onnx
):
    with open_device("adb://", runners=runners) as device:
        pair = measure([float_onnx, int8_onnx], device=device, runs=24, warmup=1)
    for found in pair:
        assert found.runtime == "onnxruntime_perf_test"
        assert len(found.times_ms) == 24  # one block of ten and one of two in each session
        assert min(*found.times_ms, found.load_ms) > 0
        assert found.outputs is None
        assert UNCHECKED in found.warnings
    assert phone.serial


def test_a_runner_does_not_know_durations(phone, runners, float_onnx):
    with (
        open_device("adb://", runners=runners) as device,
        pytest.raises(UsageError, match="use --runs, not --duration"),
    ):
        measure([float_onnx], device=device, duration_s=1.0)
    assert phone.serial


def test_parity_of_what_tells_no_outputs_is_refused(phone, runners, float_onnx, images):
    with (
        open_device("adb://", runners=runners) as device,
        pytest.raises(UsageError, match="keeps its outputs to itself"),
    ):
        run_artifact(device, float_onnx, images)
    assert phone.serial


LOG = """I 00:00:00.000612 executorch:executor_runner.cpp:343] Resetting threadpool
I 00:00:00.015204 executorch:executor_runner.cpp:624] Model loaded in 14.250000 ms.
I 00:00:00.025204 executorch:executor_runner.cpp:781] Iteration 1 of 3: 9.500000 ms
I 00:00:00.030204 executorch:executor_runner.cpp:781] Iteration 2 of 3: 4.250000 ms
I 00:00:00.034204 executorch:executor_runner.cpp:781] Iteration 3 of 3: 4.125000 ms
I 00:00:00.034304 executorch:executor_runner.cpp:790] Model executed successfully 3 time(s)
"""
SUMMARY = """Setting intra_op_num_threads to 1
Session creation time cost: 0.0183481 s
First inference time cost: 12 ms
Total inference time cost: 0.012 s
Peak working set size: 50905088 bytes
model,0.00425,50905088,74,0
model,0.0041,50905088,74,1
model,4e-05,50905088,74,2
"""


def test_what_the_runners_print_is_understood(tmp_path):
    pte = ExecutorRunner(path=tmp_path / "executor_runner").timing(LOG, warmup=1, runs=2)
    assert (pte.load_ms, pte.first_ms, pte.times_ms) == (14.25, 9.5, (4.25, 4.125))
    onnx = OnnxRuntimePerfTest(path=tmp_path / "perf").timing(SUMMARY, warmup=1, runs=2)
    assert (onnx.load_ms, onnx.first_ms) == (pytest.approx(18.3481), 12)
    assert onnx.times_ms == pytest.approx((4.1, 0.04))


@pytest.mark.parametrize("kind", [ExecutorRunner, OnnxRuntimePerfTest])
@pytest.mark.parametrize("said", ["", "Segmentation fault", LOG[:90], LOG[:250], SUMMARY[:80]])
def test_a_runner_that_tells_no_times_is_not_believed(kind, said, tmp_path):
    with pytest.raises(RuntimeFailedError, match="does not tell its times"):
        kind(path=tmp_path / "runner").timing(said, warmup=0, runs=3)


def test_runners_are_found_by_their_names(tmp_path, runners):
    pte, onnx = runners
    artifacts = [tmp_path / "a.pte", tmp_path / "b.onnx"]
    found = runners_for(artifacts, runners, tmp_path)
    assert {suffix: r.path for suffix, r in found.items()} == {".pte": pte, ".onnx": onnx}
    cached = tmp_path / "executor_runner"
    cached.touch()
    assert runners_for(artifacts[:1], [], tmp_path)[".pte"].path == cached
    assert runners_for(artifacts[:1], [pte], tmp_path)[".pte"].path == pte
    with pytest.raises(UsageError, match="no onnxruntime_perf_test"):
        runners_for(artifacts, [pte], tmp_path)


@pytest.mark.parametrize("name", ["runner", "executor_runner.missing"])
def test_what_is_no_runner_is_refused(tmp_path, name):
    with pytest.raises(UsageError, match="is not a runner"):
        runners_for([tmp_path / "a.pte"], [tmp_path / name], tmp_path)


@pytest.mark.parametrize(
    ("phones", "wanted", "chosen"),
    [
        ({"A": "device"}, "", "A"),
        ({"A": "device", "B": "device"}, "B", "B"),
        ({"A": "offline", "B": "device"}, "B", "B"),
    ],
)
def test_the_phone_that_is_meant_is_chosen(phones, wanted, chosen):
    assert choose(phones, wanted) == chosen


def test_a_phone_without_permissions_has_a_remedy_of_its_own():
    with pytest.raises(RuntimeFailedError, match="A is no permissions") as caught:
        choose({"A": "no permissions"}, "")
    assert "udev" in caught.value.remedy


def test_one_screen_tells_what_a_phone_can_run(phone, runners, capsys):
    assert _run(["device", "check", "adb://", "--runner", str(runners[0]), "--json"]) == 0
    checks = {c["name"]: c for c in json.loads(capsys.readouterr().out)["checks"]}
    assert checks["system"]["found"] == "Android 16 (arm64-v8a)"
    assert (checks[".pte"]["state"], checks[".onnx"]["state"]) == ("ok", "missing")
    assert "no onnxruntime_perf_test" in checks[".onnx"]["found"]
    assert phone.serial
