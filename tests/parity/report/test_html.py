"""The HTML report: complete, escaped, self-contained."""

import re

import manifests
import pages
import pytest
from parity_reports import with_

from mobiledeploy.parity.report.html import to_html

MANIFEST = manifests.manifest(
    encodings={"<b>x</b>": {"scale": 0.5, "zero_point": -128}},
    weights={"origin": "<own>.pth", "sha256": "12" * 32},
    calibration={"source": "photos & more", "count": 8, "sha256": "34" * 32},
)


def body(html):
    return html[html.index("<body>") :]


def test_the_page_is_self_contained_and_escaped(failing):
    text = pages.check_self_contained(to_html(failing, MANIFEST)).text
    assert "<script>alert('x')</script>" in text
    assert "<b>x</b>" in text
    assert "<own>.pth" in text
    assert "photos & more" in text


def test_the_verdict_comes_first_and_the_sections_follow(failing):
    text = body(to_html(failing, MANIFEST))
    assert text.startswith('<body>\n<header class="verdict bad">')
    order = [
        "Parity FAILED at the rung",
        "The ladder",
        "Worst images",
        "Quantization noise by layer",
        "Encodings",
        "Provenance",
    ]
    places = [text.index(heading) for heading in order]
    assert places == sorted(places)


def test_what_was_not_measured_leaves_no_empty_section(report):
    text = to_html(with_(report, layers=(), worst_images=()), None)
    for heading in ("Quantization noise", "Worst images", "Encodings"):
        assert heading not in text
    assert re.search(r'<header class="verdict">\s*<h1>Parity holds</h1>', text)


def test_the_banner_shows_size_accuracy_and_agreement_before_and_after(report):
    (artifact,) = report.artifacts
    sized = with_(report, float_bytes=4_936_000, artifacts=(with_(artifact, size_bytes=1_234_000),))
    cards = re.findall(
        r'<div class="card"><span>(.*?)</span><b>(.*?)</b><small>(.*?)</small></div>',
        to_html(sized, None),
    )
    shown = {name: (value, detail) for name, value, detail in cards}
    assert shown["size"] == ("4.94 → 1.23 MB", "float32 weights → 1.23 MB .onnx")
    value, detail = shown["top-1 accuracy"]
    assert value == "50.0% → 45.0%"
    assert detail == "-5.0 percentage points, float → ONNX Runtime"
    found = report.rungs[2].against("float").metrics
    assert shown["top-1 agreement with float"][0] == f"{found['top1_agreement']:.1%}"
    assert shown["differing logits"] == ("0", "of 120, against the integer reference")


def test_without_labels_and_sizes_the_banner_shows_what_there_is(report):
    rungs = tuple(with_(rung, accuracy=None) for rung in report.rungs)
    text = to_html(with_(report, rungs=rungs, float_bytes=0), None)
    assert "top-1 accuracy" not in text
    assert "<span>size</span>" not in text
    assert "top-1 agreement with float" in text


def test_columns_have_headings_and_cells_say_them_on_a_phone(report):
    text = to_html(report, None)
    headings = ["rung", "against", "metrics", "against float", "top-1", "verdict"]
    for heading in headings:
        assert f"<th>{heading}</th>" in text
        assert text.count(f'<td data-label="{heading}"') == len(report.rungs)


def test_what_is_worse_than_the_baseline_is_shown(report):
    text = to_html(with_(report, regressions=("onnx: SQNR went from 20 dB to 10 dB.",)), None)
    assert "WORSE than the baseline" in text
    assert "<b>baseline</b>: onnx: SQNR went from 20 dB to 10 dB." in text


def test_every_comparison_has_all_its_metrics(report):
    text = to_html(report, None)
    table = text[text.index('<table class="metrics">') : text.index("</details>")]
    assert "All metrics of 3 comparisons" in text
    assert table.count("<tr>") == 1 + 3  # integers with float, onnx with integers and with float
    assert table.count("<td") == 3 * (2 + table.count('<th class="number">'))
    assert '<td class="number">1.000 (0.839 to 1.000)</td>' in table  # Wilson, 20 of 20
    assert '<td class="number">equal</td>' in table
    assert "All metrics" not in to_html(with_(report, rungs=report.rungs[:1]), None)


@pytest.mark.parametrize("name", ["", "a <b>"])
def test_the_first_noisy_layer_is_named(report, name):
    text = pages.Page(to_html(with_(report, first_noisy_layer=name), None)).text
    assert ("too much noise of its own is a <b>." in text) == bool(name)


def test_the_layers_are_drawn_and_listed(report):
    text = to_html(report, None)
    assert text.count("<svg") == 2
    numbers = re.findall(r"<tr><td>head linear</td>(.*?)</tr>", text)
    assert re.findall(r">([^<]+)</td>", numbers[0]) == ["10.0", "20.0", "25.0"]


def test_encodings_are_shown_as_ranges(failing):
    text = to_html(failing, MANIFEST)
    assert '<td class="number">0</td><td class="number">127.5</td>' in text


def test_the_device_is_shown_if_there_is_one(report):
    assert "device:" not in to_html(report, None)
    there = with_(report, device="ssh://board (<Cortex>, aarch64)")
    assert "device: ssh://board (&lt;Cortex&gt;, aarch64)" in to_html(there, None)
