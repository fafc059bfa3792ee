"""The report of a device's first run: complete, checked against its schema, and without names."""

import getpass
import json
from pathlib import Path

import jsonschema
import pytest

from mobiledeploy.bench.device_report import DeviceReport
from mobiledeploy.cli import _run
from mobiledeploy.devices.native.bundle import cached_bundle, runner_key
from mobiledeploy.pipeline.report_device import anonymous
from mobiledeploy.utils.json_model import schema_text

HOME = str(Path.home())


@pytest.fixture
def schema(repository):
    return repository / "mobiledeploy" / "bench" / "device-report.schema.json"


def test_the_json_schema_is_current(schema, request):
    text = schema_text(DeviceReport)
    if request.config.getoption("--regen"):
        schema.write_text(text)
    assert schema.read_text() == text


@pytest.mark.ci
def test_a_report_says_what_ran_and_that_outputs_are_equal(
    native, schema, int8_onnx, int8_pte, tmp_path, capsys
):
    path = tmp_path / "report.json"
    argv = ["device", "report", native, str(int8_onnx), str(int8_pte), "--runs", "8"]
    assert _run([*argv, "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    jsonschema.validate(found, json.loads(schema.read_text()))
    assert found["failure"] is None
    assert (found["device"]["kind"], found["device"]["emulated"]) == ("exec", False)
    assert found["runner"]["version"] == runner_key()
    architecture = found["device"]["architecture"]
    assert found["runner"]["sha256"] == cached_bundle(architecture).sums_sha256
    assert found["runner"]["runtimes"] == ["onnxruntime 1.32.0", "executorch 1.5.1"]
    assert [run["artifact"] for run in found["runs"]] == [int8_onnx.name, int8_pte.name]
    for run in found["runs"]:
        assert (run["cores"], run["runs"]) == ("all", 8)
        assert (run["outputs"]["differing"], run["outputs"]["values"]) == (0, 80)
        assert min(run["median_ms"], run["load_ms"], run["first_ms"]) > 0
    assert str(int8_onnx.parent) not in path.read_text()
    assert "0 of 80" in capsys.readouterr().out


@pytest.mark.ci
def test_a_run_that_fails_is_reported_as_far_as_it_came(native, int8_onnx, tmp_path, capsys):
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(int8_onnx.read_bytes()[:2000])
    argv = ["device", "report", native, str(damaged), "--json", "-"]
    assert _run(argv) == 3
    found = json.loads(capsys.readouterr().out)
    assert found["runner"]["runtimes"]
    assert found["runs"] == []
    assert found["failure"]["error"] == "ArtifactError"
    assert "damaged.onnx" in found["failure"]["message"]


def test_a_device_that_is_not_set_up_is_an_error(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MOBILEDEPLOY_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert _run(["device", "report", "exec:env"]) == 4
    assert "Run `mobiledeploy device setup URI` first." in capsys.readouterr().err
    assert not list(tmp_path.glob("*.json"))


def test_no_report_names_phones_that_could_not_be_chosen(phones, tmp_path, capsys):
    serials = [phones().serial, phones().serial]
    path = tmp_path / "report.json"
    assert _run(["device", "report", "adb://", "--json", str(path)]) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert all(serial in shown for serial in serials)
    assert not path.exists()


@pytest.mark.parametrize(
    ("uri", "message", "expected"),
    [
        ("ssh://pi@berry:22", "ssh://pi@berry:22: it broke.", "the device: it broke."),
        ("ssh://pi@berry", "No route from berry for pi.", "No route from ... for ...."),
        ("ssh://pi@berry", "A pilot and blueberry pie.", "A pilot and blueberry pie."),
        ("adb://R5CT30", "adb: device R5CT30 is offline.", "adb: device ... is offline."),
        (
            "adb://10.0.0.7:5555",
            "adb://10.0.0.7:5555 and 10.0.0.7 died.",
            "the device and ... died.",
        ),
        ("exec:env", "fe80::1 and 192.168.1.20 refused.", "... and ... refused."),
        ("exec:env", f"{HOME}/a.onnx is damaged.", ".../a.onnx is damaged."),
        ("exec:env", f"The user {getpass.getuser()} may not.", "The user ... may not."),
        ("exec:env", "It ended. Last output:\nSerial: 1234", "It ended."),
        ("exec:env", "onnxruntime 1.32.0 at 12:30:05 failed.", "onnxruntime 1.32.0 at ... failed."),
    ],
)
def test_failures_are_reported_without_names_and_addresses(uri, message, expected):
    assert anonymous(message, uri) == expected
