"""Android phones with runners that the user built: the real adb client, and a daemon."""

import importlib
import json
from dataclasses import replace

import networks
import numpy as np
import pytest

from mobiledeploy.bench.measure import UNCHECKED, measure
from mobiledeploy.cli import _run
from mobiledeploy.devices.open import open_device, run_artifact
from mobiledeploy.errors import RuntimeFailedError, UsageError
from mobiledeploy.export.write import export_executorch


def test_the_host_of_a_phone_is_read_over_adb(phone, runners):
    with open_device("adb://", built_runners=runners) as device:
        host = device.host
    assert host.label == f"adb:// (Google Pixel 9, {host.architecture})"
    assert host.os == "Android 16 (arm64-v8a)"
    assert host.cores >= 1
    assert set(host.conditions) >= {"temperature_c", "frequency_mhz", "governor"}
    assert phone.serial


@pytest.mark.ci
def test_a_phone_returns_the_outputs_of_this_machine_for_any_file_name(
    phone, runners, int8_pte, images, tmp_path
):
    strange = tmp_path / "mobile net \"v2\" 'ä' $HOME;`id`.pte"
    strange.write_bytes(int8_pte.read_bytes())
    with open_device(f"adb://{phone.serial}", built_runners=runners) as device:
        there = run_artifact(device, strange, images[:2])
    with open_device() as here:
        assert np.array_equal(there, run_artifact(here, int8_pte, images[:2]))


@pytest.mark.ci
def test_a_phone_takes_pixels_and_returns_codes_in_their_type(phone, runners, tmp_path):
    int8 = networks.quantized_for_pixels("v1")
    codes = int8.info.outputs[0].with_activation("codes")
    model = replace(int8, info=replace(int8.info, outputs=(codes,)))
    path = export_executorch(model, tmp_path / "codes.pte").path
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 4), np.uint8)
    with open_device(f"adb://{phone.serial}", built_runners=runners) as device:
        (there,) = run_artifact(device, path, pixels)
    with open_device() as local:
        (here,) = run_artifact(local, path, pixels)
    assert (there.dtype, len(np.unique(there)) > 5) == (np.int8, True)
    assert np.array_equal(there, here)


def test_a_raw_output_of_another_size_is_refused(phone, runners, int8_pte, images, tmp_path):
    other = tmp_path / "executor_runner"
    text = runners[0].read_text()
    other.write_text(text.replace("output.numpy().tofile(", "output.numpy()[:, 1:].tofile("))
    with (
        open_device("adb://", built_runners=(other,)) as device,
        pytest.raises(RuntimeFailedError, match=r"36 bytes; expected float32 \(1, 10\)"),
    ):
        run_artifact(device, int8_pte, images[:1])
    assert phone.serial


@pytest.fixture
def one_session(monkeypatch):
    """Run one session per artifact, because every block of inferences starts the runner again."""
    module = importlib.import_module("mobiledeploy.bench.measure")
    monkeypatch.setattr(module, "MIN_SESSIONS", 1)


@pytest.mark.ci
@pytest.mark.usefixtures("one_session")
def test_bench_on_a_phone_checks_the_outputs_of_executor_runner(phone, runners, int8_pte):
    with open_device("adb://", built_runners=runners) as device:
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


@pytest.mark.ci
@pytest.mark.usefixtures("one_session")
def test_bench_warns_that_outputs_of_onnxruntime_perf_test_are_unchecked(
    phone, runners, float_onnx, int8_onnx
):
    with open_device("adb://", built_runners=runners) as device:
        pair = measure([float_onnx, int8_onnx], device=device, runs=24, warmup=1)
    for found in pair:
        assert found.runtime == "onnxruntime_perf_test"
        assert len(found.times_ms) == 24  # one block of ten and one of two in each session
        assert min(*found.times_ms, found.load_ms) > 0
        assert found.outputs is None
        assert UNCHECKED in found.warnings
    assert phone.serial


def test_durations_are_refused(phone, runners, float_onnx):
    with (
        open_device("adb://", built_runners=runners) as device,
        pytest.raises(UsageError, match="a number of inferences, not a duration"),
    ):
        measure([float_onnx], device=device, duration_s=1.0)
    assert phone.serial


def test_parity_is_refused_for_a_runner_without_outputs(phone, runners, float_onnx, images):
    with (
        open_device("adb://", built_runners=runners) as device,
        pytest.raises(UsageError, match="does not return its outputs"),
    ):
        run_artifact(device, float_onnx, images)
    assert phone.serial


def test_device_check_lists_what_a_phone_can_run(phone, runners, capsys):
    assert _run(["device", "check", "adb://", "--runner", str(runners[0]), "--json"]) == 0
    checks = {c["name"]: c for c in json.loads(capsys.readouterr().out)["checks"]}
    assert checks["system"]["found"] == "Android 16 (arm64-v8a)"
    assert (checks[".pte"]["state"], checks[".onnx"]["state"]) == ("ok", "missing")
    assert "there is no runner for it" in checks[".onnx"]["found"]
    assert phone.serial


def test_built_runners_do_not_profile(phone, runners, int8_pte, capsys):
    argv = ["bench", str(int8_pte), "--profile", "--device", "adb://", "--runner", str(runners[0])]
    assert _run(argv) == 2
    assert "native programs, which do not report operators" in capsys.readouterr().err
    assert phone.serial
