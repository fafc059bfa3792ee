"""A phone with the native runner: ARM64 programs over the real adb, executed by QEMU."""

import json
import re
import shutil
import threading

import pytest
from fake_sys import write_sys

from mobiledeploy.bench.measure import measure
from mobiledeploy.cli import _run
from mobiledeploy.devices.native.bundle import cached_bundle, runner_folder
from mobiledeploy.devices.open import open_device
from mobiledeploy.errors import UsageError

pytestmark = pytest.mark.ci  # they compile the runner and run it under an emulator


@pytest.fixture
def arm_phone(phones, arm64_bundle, monkeypatch):
    """One phone with an emulated ARM64 processor. Only the native runner may be left on it."""
    monkeypatch.setenv("MOBILEDEPLOY_CACHE", str(arm64_bundle))
    daemon = phones(architecture="aarch64")
    yield daemon
    assert {path.name for path in daemon.folder.iterdir()} <= {"mobiledeploy"}


def test_two_commands_lead_to_a_table(arm_phone, int8_pte, int8_onnx, capsys, monkeypatch):
    monkeypatch.setattr("mobiledeploy.bench.measure.MIN_SESSIONS", 1)
    assert _run(["device", "setup", "adb://", "--yes"]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert f"is in /data/local/tmp/mobiledeploy/{runner_folder()} on adb://" in told
    assert "It runs there, with onnxruntime 1.32.0 and executorch 1.5.1." in told
    assert "Next: mobiledeploy bench ARTIFACT --device adb://" in told

    argv = ["bench", str(int8_pte), str(int8_onnx), "--runs", "4", "--warmup", "0"]
    assert _run([*argv, "--device", "adb://", "--json", "-"]) == 0
    document = json.loads(capsys.readouterr().out)
    for found, runtime in zip(document["measurements"], ("executorch", "onnxruntime"), strict=True):
        assert found["device"] == "adb:// (Google Pixel 9, aarch64)"
        assert found["runtime"].startswith(runtime)
        assert (found["outputs"]["differing"], found["outputs"]["values"]) == (0, 40)
        assert found["peak_memory_bytes"] > 0
    assert document["host"]["features"] == ["dotprod"]

    assert _run(["device", "setup", "adb://", "--yes"]) == 0
    assert "(it was there)" in " ".join(capsys.readouterr().err.split())
    assert _run(["device", "clean", "adb://"]) == 0
    assert list(arm_phone.folder.iterdir()) == []
    assert f"Removed /data/local/tmp/mobiledeploy/{runner_folder()}".replace(
        "/data/local/tmp", str(arm_phone.folder)
    ) in " ".join(capsys.readouterr().err.split())


def test_setup_asks_before_it_copies_anything(arm_phone, capsys, monkeypatch):
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    assert _run(["device", "setup", "adb://"]) == 130
    assert list(arm_phone.folder.iterdir()) == []
    assert capsys.readouterr().out == ""


@pytest.fixture
def sys_of(arm_phone, tmp_path):
    """A function that gives the phone a /sys, through QEMU's -L; returns its sensor's file."""
    before, _, sysroot = arm_phone.emulator.rpartition(" ")

    def write(*max_khz, millidegrees=None):
        root = tmp_path / "root"
        shutil.copytree(sysroot, root)
        arm_phone.emulator = f"{before} {root}"
        assert _run(["device", "setup", "adb://", "--yes"]) == 0
        return write_sys(root, max_khz, millidegrees=millidegrees)

    return write


def bench_on_phone(artifact, *options):
    argv = ["bench", str(artifact), "--runs", "3", "--warmup", "0", "--device", "adb://"]
    return _run([*argv, "--json", "-", *options])


def test_cores_are_chosen_by_the_phones_own_frequencies(sys_of, int8_onnx, capsys):
    sys_of(1_803_000, 2_850_000)
    capsys.readouterr()
    for name, cores in (("big", "1"), ("little", "0")):
        assert bench_on_phone(int8_onnx, "--cores", name) == 0
        notes = json.loads(capsys.readouterr().out)["notes"]
        assert notes[0] == f"Ran on the {name} cores: {cores}."


def test_a_report_of_a_phone_has_its_clusters_and_not_its_serial(
    sys_of, arm_phone, int8_pte, tmp_path
):
    sys_of(1_803_000, 2_850_000, millidegrees=33_000)
    path, uri = tmp_path / "report.json", f"adb://{arm_phone.serial}"
    argv = ["device", "report", uri, str(int8_pte), "--runs", "3", "--json", str(path)]
    assert _run(argv) == 0
    found = json.loads(path.read_text())
    assert found["device"]["clusters"] == [
        {"cores": [0], "max_mhz": 1803.0},
        {"cores": [1], "max_mhz": 2850.0},
    ]
    assert (found["device"]["kind"], found["device"]["model"]) == ("adb", "Google Pixel 9")
    assert found["device"]["conditions"]["temperature_c"] == 33
    assert found["runner"]["sha256"] == cached_bundle("aarch64").sums_sha256
    assert [run["cores"] for run in found["runs"]] == ["big", "little"]
    assert {run["outputs"]["differing"] for run in found["runs"]} == {0}
    assert not re.search(r"127\.0\.0\.1|\bserial\b", path.read_text(), re.IGNORECASE)


def test_a_phone_with_one_cluster_has_no_big_cores(sys_of, int8_onnx, capsys):
    sys_of(2_400_000, 2_400_000)
    assert bench_on_phone(int8_onnx, "--cores", "big") == 2
    assert "all 2 cores reach 2400 MHz" in " ".join(capsys.readouterr().err.split())


def test_a_hot_phone_is_waited_for(sys_of, int8_onnx, capsys, monkeypatch):
    sensor = sys_of(2_400_000, millidegrees=45_100)
    monkeypatch.setattr("mobiledeploy.bench.temperature.POLL_S", 0.2)
    threading.Timer(3, lambda: sensor.write_text("36400\n")).start()
    capsys.readouterr()
    assert bench_on_phone(int8_onnx, "--wait-below", "37C") == 0
    [found] = json.loads(capsys.readouterr().out)["measurements"]
    assert {each["before"]["temperature_c"] for each in found["conditions"]} == {36.4}


def test_a_phone_without_a_sensor_cannot_be_waited_for(sys_of, int8_onnx, capsys):
    sys_of(2_400_000)
    assert bench_on_phone(int8_onnx, "--wait-below", "37C") == 2
    assert "no temperature sensor that can be read" in " ".join(capsys.readouterr().err.split())


@pytest.fixture
def set_up(phones, host_bundle, monkeypatch):
    """A phone with this machine's processor on which the runner is set up."""
    monkeypatch.setenv("MOBILEDEPLOY_CACHE", str(host_bundle))
    phones()
    assert _run(["device", "setup", "adb://", "--yes"]) == 0


@pytest.mark.usefixtures("set_up")
def test_durations_and_profiles_work_on_a_phone(int8_pte, capsys):
    with open_device("adb://") as device:
        [found] = measure([int8_pte], device=device, duration_s=0.5, warmup=1)
    assert len(found.times_ms) > 3
    assert _run(["bench", str(int8_pte), "--profile", "--device", "adb://"]) == 0
    assert "executorch 1.5.1 on adb://" in capsys.readouterr().out


@pytest.mark.usefixtures("set_up")
def test_device_check_lists_what_the_runner_can_run(capsys):
    assert _run(["device", "check", "adb://", "--json"]) == 0
    checks = {c["name"]: c for c in json.loads(capsys.readouterr().out)["checks"]}
    assert checks["system"]["found"] == "Android 16 (arm64-v8a)"
    assert checks[".onnx"]["found"] == "run by onnxruntime 1.32.0 in the native runner"
    assert checks[".pte"]["found"] == "run by executorch 1.5.1 in the native runner"
    assert checks[".tflite"]["state"] == "missing"


def test_python_options_do_not_apply(phones):
    phones()
    with pytest.raises(UsageError, match="--python applies to ssh:// devices only"):
        open_device("adb://", python="python3")
