"""The Markdown report: complete and escaped."""

import re

from parity_reports import with_

from mobiledeploy.parity.report.markdown import to_markdown


def test_markdown_shows_the_ladder_and_what_failed(report, failing):
    good, bad = to_markdown(report), to_markdown(failing)
    assert good.startswith("## ✅ Parity holds: net, int8\n")
    assert "| onnx | integers | 0 of 120 differ |" in good
    assert bad.startswith("## ❌ Parity FAILED at the rung 'onnx'")
    assert "- **onnx**: 1 of 120 logits differ" in bad
    assert "head linear" in good


def test_markdown_cells_stay_cells(failing):
    text = to_markdown(failing)
    for line in text.splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) in (5, 7), line
    assert "<script>" not in text.replace("\\<script\\>", "")


def test_what_is_worse_than_the_baseline_is_listed(report):
    text = to_markdown(with_(report, regressions=("onnx: it fell.",)))
    assert text.startswith("## ❌ Parity holds, but it is WORSE than the baseline")
    assert "- **baseline**: onnx: it fell." in text


def test_the_device_is_named_if_there_is_one(report):
    assert "device:" not in to_markdown(report)
    assert "device: ssh://board" in to_markdown(with_(report, device="ssh://board (A, aarch64)"))
