"""What `inspect` prints of an artifact, and its exit codes."""

import json
from pathlib import Path

import networks
import pytest

from mobiledeploy.cli import _run
from mobiledeploy.cli import inspect as cli_inspect
from mobiledeploy.inspect.inspect_artifact import inspect_artifact


@pytest.mark.parametrize("artifact", ["int8_onnx", "float_pte"])
def test_the_command_prints_one_document(artifact, request, capsys):
    path = request.getfixturevalue(artifact)
    assert _run(["inspect", str(path), "--json"]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert (document["schema"], document["kind"]) == (1, "mobiledeploy.inspect")
    assert document["size_bytes"] == path.stat().st_size
    assert document["groups"][0]["operators"]
    assert captured.err == ""


def test_the_command_prints_its_tables_to_stdout(float_pte, int8_onnx, capsys):
    assert _run(["inspect", str(float_pte)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    for text in ("XNNDepthwiseConv2d", "aten::mean.out", "labels    3: tench", "100.0%", "mean"):
        assert text in captured.out
    assert _run(["inspect", str(int8_onnx)]) == 0
    text = capsys.readouterr().out
    assert "quantized to uint8: scale 0.0" in " ".join(text.split())
    assert "operators write 8-bit integers" in text


def test_metadata_are_printed_value_by_value():
    found = cli_inspect._flattened("input", {"layout": "NCHW", "mean": [0.5, 1], "sha256": None})
    assert list(found) == [
        ("input.layout", "NCHW"),
        ("input.mean", "[0.5, 1]"),
        ("input.sha256", "null"),
    ]
    found = cli_inspect._flattened("outputs", [{"name": "ä"}, {"name": "b"}])
    assert list(found) == [("outputs[0].name", "ä"), ("outputs[1].name", "b")]
    assert list(cli_inspect._flattened("labels", [])) == [("labels", "[]")]


@pytest.mark.ci
def test_lines_fit_80_columns(exported_to, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.onnx").write_bytes(exported_to("onnx", "v2").path.read_bytes())
    assert _run(["inspect", "a.onnx"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if len(line) > 80] == []
    assert "metadata  input.layout: NCHW" in lines


def test_a_damaged_file_exits_with_3(tmp_path, capsys):
    path = tmp_path / "bad.pte"
    path.write_bytes(b"nothing")
    assert _run(["inspect", str(path)]) == 3
    assert "bad.pte" in capsys.readouterr().err


@pytest.mark.ci
@pytest.mark.parametrize("format_", ["onnx", "pte"])
def test_an_int8_artifact_states_its_margin(exported_to, format_):
    summary = inspect_artifact(exported_to(format_, "v2").path)
    margin = networks.quantized("v2", short=True).margin
    assert summary.metadata["margin"] == {"layer": margin.layer, "steps": margin.steps}
    (line,) = [line for line in cli_inspect._lines(summary) if line.startswith("margin")]
    assert line.endswith(f"steps from half-way between two codes, at {margin.layer}")


@pytest.mark.parametrize(
    ("manifest", "warning"), [("{}", "is damaged: `schema` is missing"), (None, None)]
)
def test_the_command_warns_of_a_manifest_that_does_not_fit(
    float_onnx, manifest, warning, tmp_path, capsys
):
    path = tmp_path / "a.onnx"
    path.write_bytes(float_onnx.read_bytes())
    if manifest is not None:
        (tmp_path / "a.onnx.json").write_text(manifest)
    assert _run(["inspect", str(path)]) == 0
    written = capsys.readouterr().err
    assert (warning or "") in written
    assert ("Warning" in written) == (warning is not None)
    assert _run(["inspect", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["manifest"]
    if warning is None:
        assert found is None
    else:
        assert found["path"] == f"{path}.json"
        assert warning in found["problem"]
