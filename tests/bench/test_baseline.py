"""Comparison with a baseline: only a change that the spread cannot explain is a regression."""

import json
from dataclasses import replace

import pytest
from bench_results import HOST, counted, measurement, timed, times

from mobiledeploy.bench.baseline import (
    compare,
    parse_percent,
    planned_setup,
    require_no_regression,
    require_same_setup,
    setup_of,
)
from mobiledeploy.bench.json_report import InstructionsResult, TimesResult
from mobiledeploy.cli import _run
from mobiledeploy.errors import GateError, UsageError


def compare_one(old_ms, new_ms, *, spread=0.02):
    """Compare one artifact, which has been exported again, with its baseline."""
    return compare(
        timed(measurement("a.onnx", times(new_ms, spread, seed=1), artifact_sha256="new")),
        timed(measurement("a.onnx", times(old_ms, spread, seed=2), artifact_sha256="old")),
        max_regress=0.05,
    )


def passed(comparison):
    return [(verdict.artifact, verdict.passed) for verdict in comparison.verdicts]


def test_an_artifact_that_is_as_fast_as_before_passes():
    [verdict] = compare_one(10, 10).verdicts
    assert verdict.passed
    assert verdict.ratio == pytest.approx(1, abs=0.02)
    assert (verdict.reference, verdict.metric) == ("", "time")


@pytest.mark.parametrize(("new_ms", "expected"), [(8, True), (10.3, True), (10.8, False)])
def test_a_regression_above_the_limit_fails(new_ms, expected):
    [verdict] = compare_one(10, new_ms).verdicts
    assert verdict.passed is expected
    assert verdict.ratio == pytest.approx(new_ms / 10, abs=0.02)
    assert verdict.ratio_low < verdict.ratio


def test_a_wide_spread_explains_what_a_narrow_one_does_not():
    assert not compare_one(10, 11).passed
    assert compare_one(10, 11, spread=0.9).passed


def test_the_spread_of_the_baseline_counts_too():
    """The medians differ by 30%, but the old one may have been as slow."""
    old = timed(measurement("a.onnx", [8.0] * 9 + [12.0] * 8, artifact_sha256="old"))
    new = timed(measurement("a.onnx", [10.4] * 17, artifact_sha256="new"))
    [verdict] = compare(new, old, max_regress=0.05).verdicts
    assert verdict.ratio == pytest.approx(1.3)
    assert verdict.ratio_low == pytest.approx(10.4 / 12)
    assert verdict.passed


def test_a_common_reference_cancels_the_speed_of_the_machine():
    """The machine has half the speed in the second run; the candidate has not changed."""
    reference = "float.onnx"
    old = timed(measurement(reference, times(20)), measurement("a.onnx", times(10)))
    new = timed(measurement(reference, times(40)), measurement("a.onnx", times(20)))
    [verdict] = compare(new, old, max_regress=0.05).verdicts
    assert verdict.passed
    assert verdict.reference == reference
    slower = timed(measurement(reference, times(40)), measurement("a.onnx", times(22)))
    [verdict] = compare(slower, old, max_regress=0.05).verdicts
    assert not verdict.passed
    assert verdict.ratio == pytest.approx(1.1, abs=0.01)


@pytest.mark.parametrize("change", [{"runtime": "onnxruntime 2"}, {"artifact_sha256": "other"}])
def test_another_runtime_or_artifact_is_no_common_reference(change):
    """All artifacts have become slower, and the ratios to the first one would not show it."""
    old = timed(measurement("float.onnx", times(10)), measurement("a.onnx", times(5)))
    new = timed(
        measurement("float.onnx", times(30), **change),
        measurement("a.onnx", times(15), **change),
    )
    comparison = compare(new, old, max_regress=0.05)
    assert passed(comparison) == [("float.onnx", False), ("a.onnx", False)]


def test_comparing_nothing_is_an_error():
    with pytest.raises(UsageError, match=r"nothing to compare: .* baseline are b\.onnx"):
        compare(timed(measurement("a.onnx")), timed(measurement("b.onnx")), max_regress=0)


@pytest.mark.parametrize(
    ("host", "threads", "message"),
    [
        (replace(HOST, uri="local"), 1, "its device is ssh://pi"),
        (replace(HOST, model="Pi 4"), 1, "its device is"),
        (HOST, 4, "its number of threads is 1, that of this run is 4"),
    ],
)
def test_results_with_different_setups_cannot_be_compared(host, threads, message):
    old = timed(measurement())
    with pytest.raises(UsageError, match=message):
        compare(timed(measurement(threads=threads), host=host), old, max_regress=0.05)
    with pytest.raises(UsageError, match=message):
        require_same_setup(planned_setup(TimesResult, host, threads), setup_of(old))
    require_same_setup(planned_setup(TimesResult, HOST, 1), setup_of(old))


def test_times_on_other_cores_cannot_be_compared():
    little, big, everywhere = (timed(measurement(affinity=cores)) for cores in ((0, 1), (4,), ()))
    with pytest.raises(UsageError, match=r"its choice of cores is 0, 1, that of this run is 4\."):
        compare(big, little, max_regress=0.05)
    with pytest.raises(UsageError, match=r"its choice of cores is all, that of this run is 4\."):
        require_same_setup(planned_setup(TimesResult, HOST, 1, (4,)), setup_of(everywhere))
    older = timed(measurement())  # its document does not say which cores
    for other in (little, everywhere):
        assert compare(other, older, max_regress=0.05).passed
        assert compare(older, other, max_regress=0.05).passed


def test_counts_do_not_depend_on_cores():
    old = setup_of(counted(("a.onnx", 500)))
    require_same_setup(planned_setup(InstructionsResult, HOST, 1, (4,)), old)


def test_the_gate_names_what_has_regressed():
    require_no_regression(compare_one(10, 10))
    with pytest.raises(GateError, match=r"more than 5%: a.onnx \+1[0-9.]+% \(at least"):
        require_no_regression(compare_one(10, 11.5))


def test_the_gate_names_only_the_reference_of_artifacts_that_have_one():
    old = timed(measurement("float.onnx", times(20)), measurement("a.onnx", times(10)))
    new = timed(measurement("float.onnx", times(20)), measurement("a.onnx", times(30)))
    with pytest.raises(GateError, match=r"a.onnx .* relative to float.onnx\."):
        require_no_regression(compare(new, old, max_regress=0.05))


def test_a_missing_artifact_fails_and_a_new_one_is_listed():
    """b.onnx is nine times as slow now, under a name that is not in the baseline."""
    first, a = measurement("first.onnx", times(20)), measurement("a.onnx", times(10))
    old = timed(first, a, measurement("b.onnx", times(10)))
    comparison = compare(
        timed(first, a, measurement("new_b.onnx", times(90))), old, max_regress=0.05
    )
    assert passed(comparison) == [("a.onnx", True)]
    assert (comparison.missing, comparison.added) == (("b.onnx",), ("new_b.onnx",))
    assert not comparison.passed
    with pytest.raises(GateError, match=r"not measured now: b\.onnx\.") as error:
        require_no_regression(comparison)
    assert "b.onnx as well, or write a new baseline" in error.value.remedy


def test_an_artifact_that_is_only_in_the_result_passes():
    first, a = measurement("first.onnx", times(20)), measurement("a.onnx", times(10))
    comparison = compare(timed(first, a), timed(first), max_regress=0.05)
    assert (comparison.missing, comparison.added) == ((), ("a.onnx",))
    assert comparison.passed
    require_no_regression(comparison)


def test_the_reference_alone_does_not_pass_for_all_artifacts():
    first, a = measurement("first.onnx", times(20)), measurement("a.onnx", times(10))
    with pytest.raises(GateError, match=r"not measured now: a\.onnx"):
        require_no_regression(compare(timed(first), timed(first, a), max_regress=0.05))


def test_files_with_the_same_name_are_paired_in_their_order():
    """Comparing both with the last one would let the slow one pass."""
    old = timed(measurement("old/net.onnx", times(10)), measurement("new/net.onnx", times(30)))
    new = timed(measurement("x/net.onnx", times(20)), measurement("y/net.onnx", times(30)))
    assert [v.passed for v in compare(new, old, max_regress=0.05).verdicts] == [False, True]
    once = timed(measurement("net.onnx", times(10)))
    assert compare(once, old, max_regress=0.05).missing == ("net.onnx (number 2 of that name)",)


@pytest.mark.parametrize(("text", "share"), [("5%", 0.05), ("0", 0), ("12.5", 0.125)])
def test_percentages_are_parsed(text, share):
    assert parse_percent(text) == share


@pytest.mark.parametrize("text", ["-1%", "five", "", "nan", "inf"])
def test_invalid_percentages_are_refused(text):
    with pytest.raises(UsageError, match="expected a percentage"):
        parse_percent(text)


@pytest.mark.parametrize(
    ("now", "expected"), [(990_000, True), (1_000_900, True), (1_001_100, False)]
)
def test_instruction_counts_are_compared_directly_between_machines(now, expected):
    """There is no reference, although the first artifact is the same in both."""
    new = counted(("a.onnx", 500), ("b.onnx", now), host=replace(HOST, uri="exec:here"))
    old = counted(("a.onnx", 500), ("b.onnx", 1_000_000), host=replace(HOST, uri="exec:there"))
    comparison = compare(new, old, max_regress=0.001)
    assert passed(comparison) == [("a.onnx", True), ("b.onnx", expected)]
    assert comparison.verdicts[1].ratio == now / 1e6
    assert comparison.verdicts[1].metric == "instructions"
    if not expected:
        with pytest.raises(
            GateError, match=r"More instructions than the baseline by more than 0.1%"
        ):
            require_no_regression(comparison)


def test_counts_of_another_processor_cannot_be_compared():
    neon = replace(HOST, features=frozenset())
    with pytest.raises(UsageError, match="its device is aarch64 with dotprod, that of this run"):
        compare(counted(("a.onnx", 500), host=neon), counted(("a.onnx", 500)), max_regress=0.1)
    with pytest.raises(UsageError, match="with no int8 instructions"):
        require_same_setup(
            planned_setup(InstructionsResult, neon, 1), setup_of(counted(("a.onnx", 500)))
        )


def test_times_and_counts_cannot_be_compared():
    with pytest.raises(UsageError, match=r"its kind is mobiledeploy\.bench, that of this run"):
        compare(counted(("a.onnx", 500)), timed(measurement()), max_regress=0.1)


@pytest.mark.ci
def test_the_command_exits_with_1_for_a_regression(float_onnx, int8_onnx, tmp_path, capsys):
    """A result passes as its own baseline; one with a tenth of the times does not."""
    kept, history = tmp_path / "kept.json", tmp_path / "log" / "history.jsonl"
    arguments = ["bench", str(float_onnx), str(int8_onnx), "--runs", "30", "--warmup", "3"]
    assert _run([*arguments, "--json", str(kept), "--history", str(history)]) == 0
    again = [*arguments, "--baseline", str(kept), "--history", str(history)]
    assert _run([*again, "--max-regress", "400%"]) == 0
    assert "against the baseline, relative to float.onnx." in capsys.readouterr().out
    old = json.loads(kept.read_text())
    old["measurements"][1]["times_ms"] = [t / 10 for t in old["measurements"][1]["times_ms"]]
    kept.write_text(json.dumps(old))
    assert _run(again) == 1
    assert "Slower than the baseline by more than 5%" in capsys.readouterr().err
    lines = [json.loads(line) for line in history.read_text().splitlines()]
    assert len(lines) == 3
    assert all(line["measured_at"].startswith("20") for line in lines)
    assert "times_ms" not in lines[0]["measurements"][0]
    assert lines[0]["measurements"][0]["median_ms"] > 0


@pytest.mark.ci
def test_the_command_lists_artifacts_that_it_could_not_compare(
    float_onnx, int8_onnx, tmp_path, capsys
):
    kept, now = tmp_path / "kept.json", tmp_path / "now.json"
    options = ["--runs", "3", "--warmup", "0"]
    assert _run(["bench", str(float_onnx), *options, "--json", str(kept)]) == 0
    gate = ["--baseline", str(kept), "--max-regress", "9999%", "--json", str(now)]
    assert _run(["bench", str(float_onnx), str(int8_onnx), *options, *gate]) == 0
    assert "int8.onnx: not in the baseline, so not compared." in capsys.readouterr().out
    found = json.loads(now.read_text())["baseline"]
    assert (found["passed"], found["missing"], found["added"]) == (True, [], ["int8.onnx"])
    assert [v["artifact"] for v in found["verdicts"]] == ["float.onnx"]

    kept.write_text(now.read_text())
    assert _run(["bench", str(float_onnx), *options, *gate]) == 1
    assert "int8.onnx: in the baseline, but not measured now." in capsys.readouterr().out
    assert json.loads(now.read_text())["baseline"]["missing"] == ["int8.onnx"]


def test_a_result_that_cannot_be_compared_is_written_all_the_same(
    float_onnx, int8_onnx, tmp_path, capsys
):
    kept, now = tmp_path / "kept.json", tmp_path / "now.json"
    options = ["--runs", "3", "--warmup", "0"]
    assert _run(["bench", str(float_onnx), *options, "--json", str(kept)]) == 0
    gate = ["--baseline", str(kept), "--json", str(now)]
    assert _run(["bench", str(int8_onnx), *options, *gate]) == 2
    assert "nothing to compare" in capsys.readouterr().err
    assert json.loads(now.read_text())["baseline"] is None


def test_the_baseline_is_read_before_anything_is_measured(float_onnx, tmp_path, capsys):
    missing = str(tmp_path / "none.json")
    assert _run(["bench", str(float_onnx), "--baseline", missing]) == 3
    assert "Timing" not in capsys.readouterr().err
