"""A regression is what the spread cannot explain; everything else passes, and nothing fails."""

import json
import random

import pytest

from mobiledeploy.bench.baseline import compare, parse_percent, read_result, require
from mobiledeploy.bench.history import append, require_appendable
from mobiledeploy.cli import _run
from mobiledeploy.errors import ArtifactError, GateError, UsageError

HOST = {"place": "ssh://pi", "model": "Pi 5", "architecture": "aarch64"}


def times(median, spread=0.02, count=60, seed=0):
    random_ = random.Random(seed)
    return [median * (1 + spread * random_.uniform(-1, 1)) for _ in range(count)]


def document(*entries, host=HOST, threads=1, runtime="onnxruntime 1"):
    return {
        "schema": 1,
        "kind": "mobiledeploy.bench",
        "host": host,
        "measurements": [
            {
                "artifact": f"exports/{n}",
                "artifact_sha256": sha,
                "runtime": runtime,
                "threads": threads,
                "times_ms": t,
            }
            for n, sha, t in entries
        ],
    }


def change(old_ms, new_ms, *, spread=0.02, max_regress=0.05):
    [verdict] = change_of_one(old_ms, new_ms, spread, max_regress).verdicts
    return verdict


def change_of_one(old_ms, new_ms, spread=0.02, max_regress=0.05):
    return compare(
        document(("a.onnx", "new", times(new_ms, spread, seed=1))),
        document(("a.onnx", "old", times(old_ms, spread, seed=2))),
        max_regress=max_regress,
    )


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
    [verdict] = compare(new, old, max_regress=0.05).verdicts
    assert verdict.passed
    assert verdict.yardstick == "float.onnx"
    slower = document(("float.onnx", "same", times(40)), ("a.onnx", "new", times(22)))
    [verdict] = compare(slower, old, max_regress=0.05).verdicts
    assert not verdict.passed
    assert verdict.change == pytest.approx(1.1, abs=0.01)


def test_a_yardstick_by_another_runtime_is_none():
    """All may have become slower with it: by the first, the others would not have."""
    before = (("float.onnx", "f", times(10)), ("a.onnx", "old", times(5)))
    now = (("float.onnx", "f", times(30)), ("a.onnx", "new", times(15)))
    old, new = document(*before), document(*now, runtime="onnxruntime 2")
    verdicts = compare(new, old, max_regress=0.05).verdicts
    assert [(v.artifact, v.passed) for v in verdicts] == [("float.onnx", False), ("a.onnx", False)]


def test_what_the_baseline_s_own_spread_explains_passes():
    """The medians are 30% apart, but the old one may have been as slow."""
    old = document(("a.onnx", "old", [8.0] * 9 + [12.0] * 8))
    new = document(("a.onnx", "new", [10.4] * 17))
    [verdict] = compare(new, old, max_regress=0.05).verdicts
    assert verdict.change == pytest.approx(1.3)
    assert verdict.certain_change == pytest.approx(10.4 / 12)
    assert verdict.passed


def test_another_yardstick_is_none():
    old = document(("float.onnx", "one", times(20)), ("a.onnx", "old", times(10)))
    new = document(("float.onnx", "another", times(40)), ("a.onnx", "new", times(20)))
    assert [(v.artifact, v.passed) for v in compare(new, old, max_regress=0.05).verdicts] == [
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
    require(change_of_one(10, 10))
    with pytest.raises(GateError, match=r"more than 5%: a.onnx takes \+1[0-9.]+% \(at least"):
        require(change_of_one(10, 11.5))


def test_what_was_renamed_is_told_and_what_is_missing_fails():
    """It is nine times as slow now, under a name that the baseline does not know."""
    y, a = ("y.onnx", "same", times(20)), ("a.onnx", "a", times(10))
    old = document(y, a, ("b.onnx", "b", times(10)))
    outcome = compare(document(y, a, ("new_b.onnx", "b2", times(90))), old, max_regress=0.05)
    assert [(v.artifact, v.passed) for v in outcome.verdicts] == [("a.onnx", True)]
    assert (outcome.missing, outcome.added) == (("b.onnx",), ("new_b.onnx",))
    assert outcome.document()["passed"] is False
    with pytest.raises(GateError, match=r"not measured now: b\.onnx\.") as error:
        require(outcome)
    assert "b.onnx as well, or write a new baseline" in error.value.remedy


def test_one_more_than_the_baseline_has_passes():
    y, a = ("y.onnx", "same", times(20)), ("a.onnx", "a", times(10))
    outcome = compare(document(y, a), document(y), max_regress=0.05)
    assert (outcome.missing, outcome.added) == ((), ("a.onnx",))
    assert outcome.document()["passed"] is True
    require(outcome)


def test_a_yardstick_alone_does_not_pass_for_all():
    y, a = ("y.onnx", "same", times(20)), ("a.onnx", "a", times(10))
    with pytest.raises(GateError, match=r"not measured now: a\.onnx"):
        require(compare(document(y), document(y, a), max_regress=0.05))


def test_files_of_one_name_are_compared_in_their_order():
    """Each with the one in its place; both with the last of them would pass the slow one."""
    old = document(("old/net.onnx", "1", times(10)), ("new/net.onnx", "2", times(30)))
    new = document(("old/net.onnx", "3", times(20)), ("new/net.onnx", "4", times(30)))
    outcome = compare(new, old, max_regress=0.05)
    assert [v.passed for v in outcome.verdicts] == [False, True]
    once = document(("net.onnx", "1", times(10)))
    assert compare(once, old, max_regress=0.05).missing == ("net.onnx (number 2 of that name)",)


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


COMPLETE = {
    "schema": 1,
    "kind": "mobiledeploy.bench",
    "host": HOST,
    "measurements": [
        {
            "artifact": f"exports/{name}",
            "artifact_sha256": name,
            "runtime": "onnxruntime 1",
            "threads": 1,
            "times_ms": [1.0, 2.0, 4],
            "median_ms": 2.0,
            "p90_ms": 3.6,
            "ratio_to_first": {"median": 1.0},
        }
        for name in ("a.onnx", "b.onnx")
    ],
}
GONE = object()


def damaged(whole, keys, value):
    """Return a document with another value, or none, at a path of keys."""
    document = inner = json.loads(json.dumps(whole))
    for key in keys[:-1]:
        inner = inner[key]
    if value is GONE:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    return document


@pytest.mark.parametrize(
    ("keys", "value", "says"),
    [
        (["host"], GONE, "`host` is missing"),
        (["host"], None, "`host` is missing"),
        (["host", "model"], None, "`host.model` is null, expected a text"),
        (["measurements"], GONE, "`measurements` is no list"),
        (["measurements"], None, "`measurements` is no list"),
        (["measurements"], [], "`measurements` is no list with something in it"),
        (["measurements", 1], None, "`measurements[1]` is missing, or no object"),
        (["measurements", 1, "artifact_sha256"], GONE, "`measurements[1].artifact_sha256` is miss"),
        (["measurements", 0, "artifact"], 3, "`measurements[0].artifact` is 3, expected a text"),
        (["measurements", 0, "runtime"], GONE, "`measurements[0].runtime` is missing"),
        (["measurements", 0, "runtime"], None, "`measurements[0].runtime` is null"),
        (["measurements", 0, "threads"], "1", 'threads` is "1", expected a whole number'),
        (["measurements", 0, "median_ms"], 0, "median_ms` is 0, expected a number above 0"),
        (["measurements", 0, "p90_ms"], float("nan"), "p90_ms` is NaN"),
        (["measurements", 0, "times_ms"], [], "times_ms` is [], expected a list of numbers"),
        (["measurements", 0, "times_ms"], [1, None], "times_ms` is [1, null]"),
        (["measurements", 0, "times_ms"], [1.0], "1 times in one measurement, 3 in another"),
        (["measurements", 0, "ratio_to_first"], {}, "ratio_to_first` is {}, expected an object"),
    ],
)
def test_a_damaged_result_is_told_by_what_is_wrong_with_it(
    tmp_path, keys, value, says, float_onnx, capsys
):
    path = tmp_path / "old.json"
    path.write_text(json.dumps(damaged(COMPLETE, keys, value)))
    for command in (["compare", str(path)], ["bench", str(float_onnx), "--baseline", str(path)]):
        assert _run(command) == 3
        said = capsys.readouterr().err
        assert f"{path} is a damaged result of `mobiledeploy bench`" in said
        assert says in said
        assert "Write it anew" in said


def test_what_is_not_read_of_a_result_may_be_missing(tmp_path):
    path = tmp_path / "old.json"
    path.write_text(json.dumps(COMPLETE))
    assert read_result(path) == COMPLETE


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (["host", "features"], "dotprod"),
        (["host", "features"], [1]),
        (["measurements", 0, "instructions"], GONE),
        (["measurements", 0, "instructions"], ["many"]),
    ],
)
def test_damaged_counts_are_told(tmp_path, keys, value):
    path = tmp_path / "old.json"
    path.write_text(json.dumps(damaged(counted(("a.onnx", "x", 500)), keys, value)))
    with pytest.raises(ArtifactError, match=f"damaged .*{keys[-1]}"):
        read_result(path, "mobiledeploy.bench.instructions")


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


def test_the_command_tells_what_it_could_not_pair(float_onnx, int8_onnx, tmp_path, capsys):
    kept, now = tmp_path / "kept.json", tmp_path / "now.json"
    options = ["--runs", "3", "--warmup", "0"]
    assert _run(["bench", str(float_onnx), *options, "--json", str(kept)]) == 0
    gate = ["--baseline", str(kept), "--max-regress", "9999%", "--json", str(now)]
    assert _run(["bench", str(float_onnx), str(int8_onnx), *options, *gate]) == 0
    assert "int8.onnx: not in the baseline, so not compared." in capsys.readouterr().err
    told = json.loads(now.read_text())["baseline"]
    assert (told["passed"], told["missing"], told["added"]) == (True, [], ["int8.onnx"])
    assert [v["artifact"] for v in told["verdicts"]] == ["float.onnx"]

    kept.write_text(now.read_text())
    assert _run(["bench", str(float_onnx), *options, *gate]) == 1
    assert "int8.onnx: in the baseline, but not measured now." in capsys.readouterr().err
    assert json.loads(now.read_text())["baseline"]["missing"] == ["int8.onnx"]


def test_what_cannot_be_compared_is_kept_all_the_same(float_onnx, int8_onnx, tmp_path, capsys):
    kept, now = tmp_path / "kept.json", tmp_path / "now.json"
    options = ["--runs", "3", "--warmup", "0"]
    assert _run(["bench", str(float_onnx), *options, "--json", str(kept)]) == 0
    gate = ["--baseline", str(kept), "--json", str(now)]
    assert _run(["bench", str(int8_onnx), *options, *gate]) == 2
    assert "nothing to compare" in capsys.readouterr().err
    assert "baseline" not in json.loads(now.read_text())


def test_a_line_that_was_cut_short_does_not_swallow_the_next(tmp_path):
    history = tmp_path / "history.jsonl"
    for whole in ('{"cut": tr', '{"whole": true}\n', ""):
        history.write_text(whole)
        append(history, {"measurements": []})
        *former, last = history.read_text().splitlines()
        assert former == whole.splitlines()
        assert json.loads(last)["measurements"] == []


@pytest.mark.parametrize(
    ("history", "says"),
    [
        ("file/history.jsonl", "Could not write"),
        ("", "Could not append"),
        ("/proc/no/h", "/proc/no"),
    ],
)
def test_a_history_that_cannot_be_written_is_told_before_the_measurement(
    float_onnx, tmp_path, history, says, capsys
):
    (tmp_path / "file").touch()
    options = ["--runs", "3", "--history", str(tmp_path / history)]
    assert _run(["bench", str(float_onnx), *options]) == 4
    told = capsys.readouterr().err
    assert says in told
    assert "Timing" not in told


def test_a_history_grows_and_looking_whether_it_can_leaves_it_alone(tmp_path):
    path = tmp_path / "new" / "history.jsonl"
    require_appendable(path)
    assert not path.exists()
    append(path, COMPLETE)
    before = path.read_text()
    require_appendable(path)
    assert path.read_text() == before
    append(path, COMPLETE)
    assert len(path.read_text().splitlines()) == 2


def test_a_baseline_is_read_before_anything_is_measured(float_onnx, tmp_path, capsys):
    missing = str(tmp_path / "none.json")
    assert _run(["bench", str(float_onnx), "--baseline", missing]) == 3
    assert "Timing" not in capsys.readouterr().err


def counted(*counts, features=("dotprod",), place="exec:qemu here"):
    host = {"place": place, "model": "emulated", "architecture": "aarch64", "features": features}
    entries = [
        {"artifact": name, "artifact_sha256": sha, "runtime": "onnxruntime 1", "threads": 1}
        | {"instructions": [n - 9, n, n + 99]}
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
    outcome = compare(new, old, max_regress=0.001)
    verdicts = outcome.verdicts
    assert [(v.artifact, v.passed) for v in verdicts] == [("a.onnx", True), ("b.onnx", passed)]
    assert verdicts[1].change == now / 1e6
    if not passed:
        with pytest.raises(
            GateError, match=r"More instructions than the baseline by more than 0.1%"
        ):
            require(outcome)


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
