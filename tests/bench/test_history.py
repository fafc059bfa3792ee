"""Results that are appended to a file, one line per run."""

import json

import pytest
from bench_results import measurement, timed

from mobiledeploy.bench.history import append, require_appendable
from mobiledeploy.cli import _run


def test_an_incomplete_last_line_does_not_damage_the_next_one(tmp_path):
    history = tmp_path / "history.jsonl"
    for before in ('{"cut": tr', '{"whole": true}\n', ""):
        history.write_text(before)
        append(history, {"measurements": []})
        *former, last = history.read_text().splitlines()
        assert former == before.splitlines()
        assert json.loads(last)["measurements"] == []


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ("file/history.jsonl", "Could not write"),
        ("", "Could not append"),
        ("/proc/no/h", "/proc/no"),
    ],
)
def test_an_unwritable_history_is_an_error_before_the_measurement(
    float_onnx, tmp_path, history, message, capsys
):
    (tmp_path / "file").touch()
    options = ["--runs", "3", "--history", str(tmp_path / history)]
    assert _run(["bench", str(float_onnx), *options]) == 4
    output = capsys.readouterr().err
    assert message in output
    assert "Timing" not in output


def test_checking_a_history_does_not_change_it(tmp_path):
    path = tmp_path / "new" / "history.jsonl"
    require_appendable(path)
    assert not path.exists()
    append(path, timed(measurement()).model_dump(mode="json"))
    before = path.read_text()
    require_appendable(path)
    assert path.read_text() == before
    append(path, timed(measurement()).model_dump(mode="json"))
    assert len(path.read_text().splitlines()) == 2
