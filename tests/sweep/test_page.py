"""The page of `sweep --html`: what it says, and that foreign text stays text."""

import json
import re
from dataclasses import replace
from html import unescape
from importlib.util import find_spec

import pages
import pytest
import real_parts
import sweep_results
from sweep_results import DEVICES, HOSTILE, RESULTS

from mobiledeploy.errors import UsageError
from mobiledeploy.sweep import page
from mobiledeploy.sweep.page import to_html


@pytest.fixture(autouse=True, scope="module")
def _plotly():
    if find_spec("plotly") is None:
        real_parts.missing("plotly", 'pip install "mobiledeploy[html]"')


def parsed(html):
    """Return the page without its scripts, and the data that they read."""
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html)
    return pages.Page(re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)), json.loads(data)


def test_the_pick_is_the_headline_with_the_reason():
    found, data = parsed(to_html(*sweep_results.shown(), DEVICES))
    assert found.open == []
    assert "Pick: v3-small, 160 pixels, fast" in found.text
    assert "top-1 and latency are the same" not in found.text
    assert "Against the second, v3-small, 160 pixels, fast" in found.text
    assert "its top-1 is the same, and it is 1 ms faster" in found.text
    assert [row["name"] for row in data["rows"] if row["pick"]] == [
        f"v3-small, 160 pixels, fast, {HOSTILE} (.onnx)"
    ]


def test_all_figures_are_in_the_table_and_in_the_data():
    html = to_html(*sweep_results.shown(), DEVICES)
    found, data = parsed(html)
    for text in ("0.7000", "2.00", "160", "36.0", "4.00", "16.00", "misses the budget: 16 ms"):
        assert text in found.text
    names = [axis["name"] for axis in data["axes"]]
    assert names == [
        *("top1", "agreement", "sqnr_db", "size_mb", "macs_m", "latency_0", "latency_1")
    ]
    assert data["rows"][2]["values"]["latency_1"] == 16.0
    assert len(data["rows"]) == 8
    headings = [attributes for tag, attributes in found.tags if tag == "th"]
    assert [each["data-axis"] for each in headings if "data-axis" in each] == names


def test_what_was_not_measured_is_no_axis():
    bare = [
        replace(
            result,
            artifacts=tuple(
                replace(each, top1=None, macs=None, latency_ms={}) for each in result.artifacts
            ),
        )
        for result in RESULTS
    ]
    html = to_html(*sweep_results.shown(bare), DEVICES)
    found, data = parsed(html)
    assert [axis["name"] for axis in data["axes"]] == ["agreement", "sqnr_db", "size_mb"]
    assert "No pick: no accuracy was measured" in found.text


def test_counted_instructions_take_the_place_of_a_latency():
    local, arm = DEVICES
    counted = [
        replace(
            result,
            artifacts=tuple(
                replace(each, latency_ms={local: 2.0}, instructions={arm: 7_654_321.0})
                for each in result.artifacts
            ),
        )
        for result in RESULTS
    ]
    found, data = parsed(to_html(*sweep_results.shown(counted), DEVICES))
    names = [axis["name"] for axis in data["axes"]]
    assert names[-2:] == ["latency_0", "instructions_1"]
    assert data["rows"][0]["values"]["instructions_1"] == 7.654321
    assert f"instructions on {arm}, millions" in found.text
    assert "7.65 M" in found.text  # of the pick
    options = [each.get("value") for tag, each in found.tags if tag == "option"]
    assert {"latency_0", "instructions_1"} <= set(options)


def test_points_without_an_artifact_are_listed():
    found, _ = parsed(to_html(*sweep_results.shown(), DEVICES))
    assert "failed: no <b>room</b>" in found.text
    alone, _ = parsed(to_html(*sweep_results.shown(RESULTS[-1:]), DEVICES))
    assert "No point was exported" in alone.text
    assert ("div", "chart") not in [(tag, each.get("id")) for tag, each in alone.tags]


def test_foreign_text_cannot_leave_its_place():
    html = to_html(*sweep_results.shown(), DEVICES)
    assert HOSTILE not in html
    found, data = parsed(html)
    assert HOSTILE in found.text
    assert any(HOSTILE in row["name"] for row in data["rows"])


def test_the_policy_allows_two_scripts_by_their_digests():
    html = to_html(*sweep_results.shown(), DEVICES)
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'; ")
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert len(scripts) == 2
    digests = [page._digest(script) for script in scripts]
    assert unescape(policy).endswith(f"script-src 'sha256-{digests[0]}' 'sha256-{digests[1]}'")


def test_a_page_without_plotly_is_refused(monkeypatch):
    monkeypatch.setattr(page, "find_spec", {}.get)
    with pytest.raises(UsageError, match="needs plotly") as caught:
        to_html(*sweep_results.shown(), DEVICES)
    assert caught.value.remedy == 'Run: pip install "mobiledeploy[html]"'
