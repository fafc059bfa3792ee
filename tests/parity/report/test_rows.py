"""Rows and sentences that all reports share."""

import pytest
from parity_reports import with_

from mobiledeploy.parity.report.rows import headline, loss, notes, rows


def test_rows_say_what_each_rung_is_compared_with(report):
    table = rows(report)
    assert [row.rung for row in table] == ["float", "integers", "onnx"]
    assert table[2].against == "integers"
    assert table[2].metrics == "0 of 120 differ"
    assert table[1].metrics == table[1].versus_float != ""
    assert [row.verdict for row in table] == ["passed", "passed", "passed"]


def test_a_rung_without_limits_is_information(report):
    (comparison,) = report.rungs[1].comparisons
    shown = with_(report.rungs[1], comparisons=(with_(comparison, limits={}),))
    unchecked = with_(report.rungs[1], note="random weights")
    found = rows(with_(report, rungs=(report.rungs[0], shown, unchecked)))
    assert [row.verdict for row in found] == ["passed", "info", "not checked"]
    assert notes(with_(report, rungs=(unchecked, unchecked))) == ["Not checked: random weights."]


def test_artifacts_of_one_format_are_told_apart(report):
    other = with_(report.rungs[2], artifact="other.onnx")
    table = rows(with_(report, rungs=(*report.rungs, other)))
    assert [row.rung for row in table][2:] == ["onnx net-int8.onnx", "onnx other.onnx"]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "Parity holds"),
        ({"regressions": ()}, "Parity holds, and nothing is worse than the baseline"),
        ({"regressions": ("onnx: it fell.",)}, "Parity holds, but it is WORSE than the baseline"),
    ],
)
def test_the_headline_is_the_verdict(report, changes, text):
    assert headline(with_(report, **changes)) == text


def test_the_headline_of_a_failure_names_the_rung(report, failing):
    assert headline(failing) == "Parity FAILED at the rung 'onnx'"
    nothing = with_(report, data=with_(report.data, count=0))
    assert headline(nothing) == "Parity FAILED: nothing was compared"


def test_the_loss_counts_images_and_names_the_largest_margin(report):
    flips = int(report.rungs[2].against("float").metrics["flips"])
    assert f"ONNX Runtime keeps float's top-1 class on {20 - flips} of 20 images (" in loss(report)
    without = with_(report.rungs[2], comparisons=())
    assert "integer reference keeps" in loss(with_(report, rungs=(*report.rungs[:2], without)))
    assert loss(with_(report, rungs=report.rungs[:1])) == ""
