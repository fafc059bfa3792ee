"""`mobiledeploy bench` as a user meets it."""

import json
import shutil
from dataclasses import replace

import pytest

from mobiledeploy.cli import _run


def test_the_table_goes_to_stderr_if_the_document_has_stdout(float_onnx, capsys):
    assert _run(["bench", str(float_onnx), str(float_onnx), "--runs", "6", "--json", "-"]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document["schema"] == 1
    assert [len(m["times_ms"]) for m in document["measurements"]] == [6, 6]
    assert "float.onnx" in captured.err
    assert "ratio to first" in captured.err
    assert "6 runs are few" in " ".join(captured.err.split())


def test_the_document_can_go_to_a_file(float_onnx, tmp_path, capsys):
    path = tmp_path / "out" / "bench.json"
    options = ["--threads", "2", "--runs", "3", "--warmup", "1", "--json", str(path)]
    assert _run(["bench", str(float_onnx), *options]) == 0
    (measurement,) = json.loads(path.read_text())["measurements"]
    assert (measurement["threads"], measurement["warmup"]) == (2, 1)
    assert "float.onnx" in capsys.readouterr().out


def test_a_document_that_cannot_be_written_is_told_before_the_measurement(float_onnx, capsys):
    for options in ([], ["--profile"], ["--count-instructions", "--device", "exec:nothing"]):
        command = ["bench", str(float_onnx), "--json", "/proc/nope/x.json", *options]
        assert _run(command) == 4
        told = capsys.readouterr().err
        assert "Could not write /proc/nope: No such file" in told
        assert "Timing" not in told
        assert "ratio" not in told


def test_a_baseline_of_other_circumstances_is_refused_before_anything_is_measured(
    float_onnx, tmp_path, capsys
):
    kept = tmp_path / "kept.json"
    command = ["bench", str(float_onnx), "--runs", "2"]
    assert _run([*command, "--json", str(kept)]) == 0
    capsys.readouterr()
    assert _run([*command, "--baseline", str(kept), "--threads", "2"]) == 2
    told = capsys.readouterr().err
    assert "its threads is 1, here it is 2" in " ".join(told.split())
    assert "Timing" not in told
    assert _run([*command, "--baseline", str(kept), "--json", str(kept)]) == 2
    assert "is an input of this command" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--min-sqnr", "200"], "--min-sqnr compares a device's outputs"),
        (["--max-regress", "5%"], "which was not given"),
        (["--runs", "3", "--duration", "2"], "--duration and --runs exclude one another"),
    ],
)
def test_options_that_would_mean_nothing_are_refused(float_onnx, options, said, capsys):
    assert _run(["bench", str(float_onnx), *options]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_names_are_shown_as_they_are(float_onnx, tmp_path, capsys):
    name = "a:x:[red]q.onnx"
    artifact = shutil.copy(float_onnx, tmp_path / name)
    assert _run(["bench", str(artifact), "--runs", "2"]) == 0
    assert name in capsys.readouterr().err


def test_an_x86_machine_says_that_it_is_no_phone(float_onnx, monkeypatch, capsys):
    from mobiledeploy.devices.host import describe_host
    from mobiledeploy.devices.python_device import LocalDevice

    def on(architecture):
        host = replace(describe_host(), architecture=architecture)
        monkeypatch.setattr(LocalDevice, "host", host)
        assert _run(["bench", str(float_onnx), "--runs", "2", "--json", "-"]) == 0
        captured = capsys.readouterr()
        return " ".join(captured.err.split()), json.loads(captured.out)["notes"]

    text, notes = on("x86_64")
    assert "does not predict phone latency" in text
    assert "does not predict phone latency" in notes[0]
    text, notes = on("aarch64")
    assert "phone" not in text
    assert notes == []


def test_a_damaged_artifact_exits_with_3_and_no_traceback(tmp_path, capsys):
    path = tmp_path / "bad.pte"
    path.write_bytes(b"\0" * 100)
    assert _run(["bench", str(path)]) == 3
    captured = capsys.readouterr()
    assert "is not an ExecuTorch program" in captured.err
    assert "Try:" in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    "arguments", [[], ["a.onnx", "--threads", "0"], ["a.onnx", "--runs", "1"], ["a.onnx", "--fast"]]
)
def test_wrong_usage_exits_with_2(arguments, capsys):
    assert _run(["bench", *arguments]) == 2
    assert capsys.readouterr().err
