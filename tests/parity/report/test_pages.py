"""Markdown and HTML: complete, escaped, and without a request to anywhere."""

import re
from html.parser import HTMLParser

import pytest

from mobiledeploy.parity.report.html import to_html
from mobiledeploy.parity.report.json_report import to_document
from mobiledeploy.parity.report.markdown import to_markdown
from mobiledeploy.parity.report.plot import layer_plot
from mobiledeploy.parity.report.rows import headline, loss, rows
from mobiledeploy.parity.report.table import figures_table

MANIFEST = {
    "encodings": {"<b>x</b>": {"scale": 0.5, "zero_point": -128}},
    "weights": {"source": "file", "origin": "<own>.pth", "sha256": "12" * 32},
    "calibration": {"source": "photos & more", "count": 8, "sha256": "34" * 32},
    "recipe": {"range_rule": "searched"},
    "tool_versions": {"torch": "2.13.0"},
}


def replace(model, **changes):
    return model.model_copy(update=changes)


class Page(HTMLParser):
    """Tags with their attributes, in order, and whether each was closed."""

    VOID = frozenset({"meta", "img", "br", "wbr"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def page(failing):
    return Page(to_html(failing, MANIFEST))


def test_the_page_is_well_formed(page):
    assert page.open == []


def test_nothing_of_the_users_becomes_markup(page):
    assert "script" not in [tag for tag, _ in page.tags]
    assert not [attrs for _, attrs in page.tags if any(a.startswith("on") for a in attrs)]
    shown = "".join(page.text)
    assert "<script>alert('x')</script>" in shown
    assert "<b>x</b>" in shown
    assert "<own>.pth" in shown


def test_the_page_asks_nobody_for_anything(failing):
    text = to_html(failing, MANIFEST)
    sources = re.findall(r'(?:src|href|url)\s*[=(]\s*["\']?([^"\')\s>]+)', text)
    assert sources
    assert all(source.startswith("data:image/webp;base64,") for source in sources)
    assert "http://" not in text.replace("http-equiv", "")
    assert "https://" not in text
    assert "default-src 'none'" in text


def test_the_verdict_comes_first_and_says_where(failing):
    text = to_html(failing, MANIFEST)
    body = text[text.index("<body>") :]
    assert body.index("Parity FAILED at the rung") < body.index("The ladder")
    assert body.startswith('<body>\n<header class="verdict bad">')
    order = ["The ladder", "Images to look at", "Layer by layer", "Encodings", "What it was made"]
    places = [body.index(heading) for heading in order]
    assert places == sorted(places)


def test_the_page_is_made_for_a_phone_and_for_the_night(page, failing):
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in (
        page.tags
    )
    text = to_html(failing, MANIFEST)
    assert "prefers-color-scheme: dark" in text
    assert "max-width: 40rem" in text


def test_what_was_not_asked_for_leaves_no_empty_heading(report):
    text = to_html(replace(report, layers=(), worst_images=()), {})
    for heading in ("Layer by layer", "Images to look at", "Encodings"):
        assert heading not in text
    assert '<header class="verdict"><h1>Parity holds</h1>' in text


def test_what_is_worse_than_the_baseline_is_told(report):
    worse = replace(report, regressions=("onnx: sqnr_db went from 20 to 10.",))
    assert not worse.passed
    assert headline(worse) == "Parity holds, but it is WORSE than the baseline"
    for text in (to_html(worse, {}), to_markdown(worse)):
        assert "WORSE than the baseline" in text
        assert "sqnr" in text[text.index("WORSE") :]
        assert "went from 20 to 10" in text
    assert "❌" in to_markdown(worse)
    assert replace(report, regressions=()).passed


def test_every_comparison_has_all_its_figures(report):
    table = figures_table(report)
    assert table.count("<tr>") == 1 + 3  # integers with float, onnx with integers and with float
    assert table.count("<td") == 3 * (2 + table.count('<th class="number">'))
    assert '<td class="number">1.000 (0.839 to 1.000)</td>' in table  # Wilson, 20 of 20
    assert '<td class="number">equal</td>' in table
    assert figures_table(replace(report, rungs=report.rungs[:1])) == ""


def test_the_loss_says_how_many_and_how_sure(report):
    flips = int(report.rungs[2].against("float").metrics["flips"])
    assert f"ONNX Runtime keeps float's top-1 class on {20 - flips} of 20 images (" in loss(report)
    equal = replace(report.rungs[2], comparisons=())
    assert "integer reference keeps" in loss(replace(report, rungs=(*report.rungs[:2], equal)))
    assert loss(replace(report, rungs=report.rungs[:1])) == ""


def test_the_first_bad_layer_is_named(report):
    assert "loses too much" not in to_html(report, {})
    assert "by itself is a &lt;b&gt;" in to_html(replace(report, first_noisy_layer="a <b>"), {})


def test_encodings_are_shown_as_ranges(failing):
    text = to_html(failing, MANIFEST)
    assert '<td class="number">0</td><td class="number">127.5</td>' in text


def test_the_plot_has_a_bar_and_a_point_for_each_layer(report):
    plot = layer_plot(report.layers)
    assert plot.count("<rect") == 3
    assert len(re.search(r'points="([^"]+)"', plot)[1].split()) == 3
    assert "head linear: 20.0 dB behind it, 25.0 dB its own noise, 10.0 dB lost" in plot
    assert "nan" not in plot.lower().replace("inf", "")


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


def test_rows_say_what_each_rung_is_held_against(report):
    table = rows(report)
    assert [row.rung for row in table] == ["float", "integers", "onnx"]
    assert table[2].against == "integers"
    assert table[2].metrics == "0 of 120 differ"
    assert table[1].metrics == table[1].versus_float != ""
    assert [row.verdict for row in table] == ["passed", "passed", "passed"]
    assert headline(report) == "Parity holds"


def test_the_device_is_told_where_there_is_one(report):
    for text in (to_html(report, {}), to_markdown(report)):
        assert "device:" not in text
    there = replace(report, device="ssh://board (<Cortex>, aarch64)")
    assert "device: ssh://board (&lt;Cortex&gt;, aarch64)" in to_html(there, {})
    assert "device: ssh://board" in to_markdown(there)
    assert to_document(there)["device"] == there.device


def test_two_artifacts_of_one_format_are_told_apart(report):
    other = replace(report.rungs[2], artifact="other.onnx")
    table = rows(replace(report, rungs=(*report.rungs, other)))
    assert [row.rung for row in table][2:] == ["onnx net-int8.onnx", "onnx other.onnx"]
