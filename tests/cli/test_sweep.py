"""What `sweep` prints and writes of what was measured."""

import csv
import json
from dataclasses import replace

import pytest
import sweep_results
from sweep_results import DEVICES, RESULTS

from mobiledeploy.cli import sweep
from mobiledeploy.errors import GateError
from mobiledeploy.sweep.pick import Budget

LOCAL, ARM = DEVICES
COUNTED = [
    replace(
        result,
        artifacts=tuple(
            replace(each, latency_ms={LOCAL: 2.5}, instructions={ARM: 7_654_321.0})
            for each in result.artifacts
        ),
    )
    for result in RESULTS
]


def test_instructions_are_in_the_table_the_document_and_the_csv(capsys):
    results, rows, best = sweep_results.shown(COUNTED)
    sweep._print(results, rows, best, DEVICES)
    text = capsys.readouterr().out
    assert "7.65 M" in text
    assert "2.50" in text
    assert "M: millions of instructions" in text
    document = json.loads(json.dumps(sweep._document(results, rows, best)))
    assert document["artifacts"][0]["instructions"] == {ARM: 7654321.0}
    assert document["artifacts"][0]["input"] == "float"
    (first, *_) = csv.DictReader(sweep._as_csv(rows).splitlines())
    assert first[f"instructions {ARM}"] == "7654321.0"
    assert first[f"latency_ms {LOCAL}"] == "2.5"
    assert first["input"] == "float"


def test_a_table_of_latencies_explains_no_instructions(capsys):
    results, rows, best = sweep_results.shown()
    sweep._print(results, rows, best, DEVICES)
    assert "instructions" not in capsys.readouterr().out


def test_a_device_with_a_name_is_a_column_of_that_name(capsys):
    named = "arm=exec:qemu-aarch64 -cpu cortex-a76"
    results, rows, best = sweep_results.shown()
    sweep._print(results, rows, best, (named,))
    text = capsys.readouterr().out
    assert "arm" in text
    assert "qemu" not in text


def test_a_budget_that_is_missed_is_said_once(capsys):
    point = {"state": "over budget", "error": "0.90 MB, above 0.5 MB"}
    with_artifacts = replace(RESULTS[2], **point)
    without = replace(RESULTS[0], artifacts=(), state="over budget", error="300 M MACs, above 1 M")
    shown = sweep_results.shown((with_artifacts, without), Budget(max_size_bytes=5e5))
    sweep._print(*shown, DEVICES)
    text = "".join(capsys.readouterr())
    assert text.count("0.90 MB, above 0.5 MB") == 2  # in the rows of both formats
    assert "Over budget: v2, 96 pixels, fast: 300 M MACs, above 1 M" in text


def test_a_sweep_of_which_every_point_failed_fails_and_says_how_to_go_on(capsys):
    failed = [replace(each, state="failed", error="adb finds no phone.") for each in RESULTS[:2]]
    results, rows, best = sweep_results.shown(failed)
    assert rows, "an export that succeeded before the measurement failed is in the table"
    with pytest.raises(
        GateError, match=r"Every point failed, .*: adb finds no phone\.$"
    ) as refused:
        sweep._require_success(results, rows)
    assert "--retry" in refused.value.remedy
    sweep._print(results, rows, best, DEVICES)
    assert "--retry tries these points again" in capsys.readouterr().err
    sweep._require_success(*sweep_results.shown([failed[0], RESULTS[1]])[:2])


def test_a_sweep_without_an_artifact_within_the_budget_fails():
    results, rows, _ = sweep_results.shown(RESULTS[:2])
    missed = [replace(row, missed="1.85 MB, above 0.1 MB") for row in rows]
    for none, message in ((missed, "No artifact keeps the budget"), ([], "No point was exported")):
        with pytest.raises(GateError, match=message):
            sweep._require_success(results, none)
