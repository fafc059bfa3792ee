"""A regression is what the spread cannot explain; everything else passes, and nothing fails."""

import json
import random

import pytest

from mobiledeploy.bench.baseline import compare, parse_percent, read_result, require
from mobiledeploy.cli import _run
from mobiledeploy.errors import ArtifactError, GateError, UsageError

HOST = {"place": "ssh://pi", "model": "Pi 5", "architecture": "aarch64"}


def times(median, spread=0.02, count=60, seed=0):
    random_ = random.Random(seed)
    return [median * (1 + spread * random_.uniform(-1, 1)) for _ in range(count)]


def document(*entries, host=HOST, threads=1):
    return {
        "schema": 1,
        "kind": "mobiledeploy.bench",
        "host": host,
        "measurements": [
            {"artifact": f"exports/{n}", "artifact_sha256": sha, "threads": threads, "times_ms": t}
            for n, sha, t in entries
        ],
    }


def change(old_ms, new_ms, *, spread=0.02, max_regress=0.05):
    [verdict] = compare(
        document(("a.onnx", "new", times(new_ms, spread, seed=1))),
        document(("a.onnx", "old", times(old_ms, spread, seed=2))),
        max_regress=max_regress,
    )
    return verdict


def test_what_is_as_fast_as_before_passes():
    verdict = change(10, 10)
    assert verdict.passed
    assert verdict.change == pytest.approx(1, abs=0.02)
    assert verdict.yardstick == ""


@pytest.mark.parametrize(("new_ms", "passed"), [(8, True), (10.3, True), (10.8, False)])
def test_only_more_than_is_allowed_fails(new_ms, passed):
    verdict = change(10, new_ms)
    assert verdict.passed is passed
    assert verdict.change == pytest.approx(new_ms / 10, abs=0.02)
    assert verdict.certain_change < verdict.change


def test_a_wide_spread_can_explain_what_a_narrow_one_cannot():
    assert not change(10, 11).passed
    assert change(10, 11, spread=0.9).passed


def test_the_same_yardstick_cancels_the_machine_s_mood():
    """The machine was half as fast the second time; the candidate itself did not change."""
    old = document(("float.onnx", "same", times(20)), ("a.onnx", "old", times(10)))
    new = document(("float.onnx", "same", times(40)), ("a.onnx", "new", times(20)))
    [verdict] = compare(new, old, max_regress=0.05)
    assert verdict.passed
    assert verdict.yardstick == "float.onnx"
    slower = document(("float.onnx", "same", times(40)), ("a.onnx", "new", times(22)))
    [verdict] = compare(slower, old, max_regress=0.05)
    assert not verdict.passed
    assert verdict.change == pytest.approx(1.1, abs=0.01)


def test_another_yardstick_is_none():
    old = document(("float.onnx", "one", times(20)), ("a.onnx", "old", times(10)))
    new = document(("float.onnx", "another", times(40)), ("a.onnx", "new", times(20)))
    assert [(v.artifact, v.passed) for v in compare(new, old, max_regress=0.05)] == [
        ("float.onnx", False),
        ("a.onnx", False),
    ]


def test_comparing_nothing_is_an_error():
    with pytest.raises(UsageError, match="nothing to compare"):
        compare(
            document(("a.onnx", "x", times(1))), document(("b.onnx", "y", times(1))), max_regress=0
        )


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"host": HOST | {"place": "local"}}, "its device is ssh://pi"),
        ({"host": HOST | {"model": "Pi 4"}}, "its device is"),
        ({"threads": 4}, "its threads is 1"),
    ],
)
def test_what_was_measured_otherwise_cannot_be_compared(changed, says):
    entry = ("a.onnx", "x", times(1))
    with pytest.raises(UsageError, match=says):
        compare(document(entry, **changed), document(entry), max_regress=0.05)


def test_the_gate_names_what_became_slower():
    require([change(10, 10)], 0.05)
    with pytest.raises(GateError, match=r"more than 5%: a.onnx takes \+1[0-9.]+% \(at least"):
        require([change(10, 10), change(10, 11.5)], 0.05)


@pytest.mark.parametrize(("text", "share"), [("5%", 0.05), ("0", 0), ("12.5", 0.125)])
def test_percentages(text, share):
    assert parse_percent(text) == share


@pytest.mark.parametrize("text", ["-1%", "five", "", "nan", "inf"])
def test_no_percentages(text):
    with pytest.raises(UsageError, match="expected a percentage"):
        parse_percent(text)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kind": "mobiledeploy.bench", "schema": 9}'])
def test_what_is_no_result_is_told(tmp_path, text):
    path = tmp_path / "old.json"
    path.write_text(text)
    with pytest.raises(ArtifactError, match="is not a result of `mobiledeploy bench`"):
        read_result(path)
    with pytest.raises(ArtifactError, match="No such file"):
        read_result(tmp_path / "none.json")


def test_a_regression_exits_with_1_and_a_result_is_its_own_baseline(
    float_onnx, int8_onnx, tmp_path, capsys
):
    kept, history = tmp_path / "kept.json", tmp_path / "log" / "history.jsonl"
    arguments = ["bench", str(float_onnx), str(int8_onnx), "--runs", "30", "--warmup", "3"]
    assert _run([*arguments, "--json", str(kept), "--history", str(history)]) == 0
    again = [*arguments, "--baseline", str(kept), "--history", str(history)]
    assert _run([*again, "--max-regress", "400%"]) == 0
    assert "against the baseline, as ratios to float.onnx" in " ".join(
        capsys.readouterr().err.split()
    )
    old = json.loads(kept.read_text())
    old["measurements"][1]["times_ms"] = [t / 10 for t in old["measurements"][1]["times_ms"]]
    kept.write_text(json.dumps(old))
    assert _run(again) == 1
    assert "Slower than the baseline by more than 5%" in " ".join(capsys.readouterr().err.split())
    lines = [json.loads(line) for line in history.read_text().splitlines()]
    assert len(lines) == 3
    assert all(line["measured_at"].startswith("20") for line in lines)
    assert "times_ms" not in lines[0]["measurements"][0]
    assert lines[0]["measurements"][0]["median_ms"] > 0


def test_a_history_that_cannot_be_written_is_told(float_onnx, tmp_path, capsys):
    (tmp_path / "file").touch()
    history = str(tmp_path / "file" / "history.jsonl")
    assert _run(["bench", str(float_onnx), "--runs", "3", "--history", history]) == 4
    assert "Could not append" in capsys.readouterr().err


def test_a_baseline_is_read_before_anything_is_measured(float_onnx, tmp_path, capsys):
    missing = str(tmp_path / "none.json")
    assert _run(["bench", str(float_onnx), "--baseline", missing]) == 3
    assert "Timing" not in capsys.readouterr().err


def counted(*counts, features=("dotprod",), place="exec:qemu here"):
    host = {"place": place, "model": "emulated", "architecture": "aarch64", "features": features}
    entries = [
        {"artifact": name, "artifact_sha256": sha, "threads": 1, "instructions": [n - 9, n, n + 99]}
        for name, sha, n in counts
    ]
    kind = "mobiledeploy.bench.instructions"
    return {"schema": 1, "kind": kind, "host": host, "measurements": entries}


@pytest.mark.parametrize(
    ("now", "passed"), [(990_000, True), (1_000_900, True), (1_001_100, False)]
)
def test_counts_are_compared_as_they_are_wherever_they_come_from(now, passed):
    """Nothing is a yardstick: all are compared, also where the first is the same file in both."""
    new = counted(("a.onnx", "x", 500), ("b.onnx", "new", now), place="exec:qemu there")
    old = counted(("a.onnx", "x", 500), ("b.onnx", "old", 1_000_000))
    verdicts = compare(new, old, max_regress=0.001)
    assert [(v.artifact, v.passed) for v in verdicts] == [("a.onnx", True), ("b.onnx", passed)]
    assert verdicts[1].change == now / 1e6
    if not passed:
        with pytest.raises(
            GateError, match=r"More instructions than the baseline by more than 0.1%"
        ):
            require(verdicts, 0.001)


def test_counts_of_another_processor_or_times_cannot_be_compared():
    entry = ("a.onnx", "x", 500)
    with pytest.raises(UsageError, match="its device is aarch64 with dotprod, here it is"):
        compare(counted(entry, features=()), counted(entry), max_regress=0.1)
    with pytest.raises(UsageError, match=r"its kind is mobiledeploy\.bench, here"):
        compare(counted(entry), document(("a.onnx", "x", times(1))), max_regress=0.1)


def test_a_baseline_of_the_other_kind_is_refused(tmp_path):
    path = tmp_path / "counts.json"
    path.write_text(json.dumps(counted(("a.onnx", "x", 500))))
    assert read_result(path, "mobiledeploy.bench.instructions")
    with pytest.raises(ArtifactError, match=r"is of the kind 'mobiledeploy.bench.instructions'"):
        read_result(path)
