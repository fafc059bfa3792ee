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
    assert document["schema"] == 2
    assert [len(m["times_ms"]) for m in document["measurements"]] == [6, 6]
    assert "float.onnx" in captured.err
    assert "ratio to first" in captured.err
    assert "There are only 6 runs" in " ".join(captured.err.split())


def test_the_table_fits_80_columns_and_names_have_their_own_lines(float_onnx, tmp_path, capsys):
    name = "mobilenet_v3_large_1.0_224-minimalistic-10classes-int8-from-a-run-in-november.onnx"
    artifacts = [str(float_onnx), str(shutil.copy(float_onnx, tmp_path / name))]
    assert _run(["bench", *artifacts, "--runs", "3", "--warmup", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("local (")
    assert lines[2].split() == [
        "median",
        "p90",
        "p99",
        "IQR",
        "load",
        "first",
        "memory",
        "ratio",
        "to",
        "first",
    ]
    assert lines[3].split() == ["ms", "ms", "ms", "ms", "ms", "ms", "MiB", "(quartiles)"]
    assert (lines[4], lines[7]) == ("float.onnx", name)
    assert lines[5] == lines[8]  # the runtime
    assert lines[5].startswith("  onnxruntime ")
    assert len(lines[6].split()) == 8
    assert len(lines[9].split()) == 9
    assert max(len(line) for line in lines[1:] if line != name) <= 80


def test_the_document_can_go_to_a_file(float_onnx, tmp_path, capsys):
    path = tmp_path / "out" / "bench.json"
    options = ["--threads", "2", "--runs", "3", "--warmup", "1", "--json", str(path)]
    assert _run(["bench", str(float_onnx), *options]) == 0
    (measurement,) = json.loads(path.read_text())["measurements"]
    assert (measurement["threads"], measurement["warmup"]) == (2, 1)
    assert "float.onnx" in capsys.readouterr().out


def test_an_unwritable_document_is_an_error_before_the_measurement(float_onnx, capsys):
    for options in ([], ["--profile"], ["--count-instructions", "--device", "exec:nothing"]):
        command = ["bench", str(float_onnx), "--json", "/proc/nope/x.json", *options]
        assert _run(command) == 4
        output = capsys.readouterr().err
        assert "Could not write /proc/nope: No such file" in output
        assert "Timing" not in output
        assert "ratio" not in output


def test_a_baseline_with_another_setup_is_refused_before_the_measurement(
    float_onnx, tmp_path, capsys
):
    kept = tmp_path / "kept.json"
    command = ["bench", str(float_onnx), "--runs", "2"]
    assert _run([*command, "--json", str(kept)]) == 0
    capsys.readouterr()
    assert _run([*command, "--baseline", str(kept), "--threads", "2"]) == 2
    output = capsys.readouterr().err
    assert "its number of threads is 1, that of this run is 2" in " ".join(output.split())
    assert "Timing" not in output
    assert _run([*command, "--baseline", str(kept), "--json", str(kept)]) == 2
    assert "is an input of this command" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--min-sqnr", "200"], "--min-sqnr compares a device's outputs"),
        (["--max-regress", "5%"], "which was not given"),
        (["--runs", "3", "--duration", "2"], "--duration and --runs exclude one another"),
    ],
)
def test_contradictory_options_are_refused(float_onnx, options, message, capsys):
    assert _run(["bench", str(float_onnx), *options]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_markup_in_names_is_not_interpreted(float_onnx, tmp_path, capsys):
    name = "a:x:[red]q.onnx"
    artifact = shutil.copy(float_onnx, tmp_path / name)
    assert _run(["bench", str(artifact), "--runs", "2"]) == 0
    assert name in capsys.readouterr().err


def test_x86_results_have_a_note_about_phones(float_onnx, monkeypatch, capsys):
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
