"""The page of `compare --html`: verdict, cards, chart and table."""

import math
import re

import pages
import pytest

from mobiledeploy.bench.compare import HEADINGS, Row
from mobiledeploy.bench.compare_page import to_html

LONG = "mobilenet_v2_0.25_32-rowsd2a361d9-10classes-random-int8.onnx"


def row(artifact, median_ms, **changes):
    given = {
        "device": "local, A <chip>",
        "runtime": "onnxruntime 1",
        "p90_ms": 1.2 * median_ms,
        "ratio": median_ms / 8,
        "size_bytes": 1_500_000,
        "sqnr_db": 19.25,
        "agreement": 0.975,
    }
    return Row(artifact=artifact, median_ms=median_ms, **(given | changes))


FLOAT = row("net-fp32.onnx", 8.0, size_bytes=6_000_000, sqnr_db=math.inf, agreement=1.0)
INT8 = row("net-int8.onnx", 4.0)
ON_PI = {"device": "ssh://pi, B"}


def charts(html):
    """Return the charts for a desk and for a phone."""
    wide, narrow = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    return wide, narrow


def test_the_page_is_self_contained_and_escaped():
    page = pages.check_self_contained(to_html([FLOAT, INT8], HEADINGS))
    assert "A <chip>" in page.text


def test_the_verdict_names_the_artifact_with_the_lowest_median():
    page = pages.Page(to_html([FLOAT, INT8], HEADINGS))
    assert "net-int8.onnx has the lowest median latency" in page.text
    for figure in ("4.00 ms", "p90 4.80 ms", "2.00 \N{MULTIPLICATION SIGN}", "1.50 MB", "97.5%"):
        assert figure in page.text
    assert "as fast as the first artifact" in page.text


def test_every_device_has_its_own_fastest_artifact():
    slow = row("net-int8.onnx", 80.0, **ON_PI)
    page = pages.Page(to_html([FLOAT, INT8, row("net-fp32.onnx", 40.0, **ON_PI), slow], HEADINGS))
    assert "2 artifacts on 2 devices" in page.text
    assert "Lowest on local, A <chip>: net-int8.onnx" in page.text
    assert "Lowest on ssh://pi, B: net-fp32.onnx" in page.text


def test_one_artifact_that_leads_everywhere_is_the_headline():
    rows = [FLOAT, INT8, row("net-fp32.onnx", 80.0, **ON_PI), row("net-int8.onnx", 40.0, **ON_PI)]
    assert (
        "net-int8.onnx has the lowest median latency on every device"
        in pages.Page(to_html(rows, HEADINGS)).text
    )


@pytest.mark.parametrize("which", [0, 1])
def test_the_chart_names_every_artifact_once_per_panel(which):
    chart = charts(to_html([FLOAT, INT8], HEADINGS))[which]
    panels = 1 if which == 0 else 3  # side by side, one column of labels serves all panels
    for name in ("net-fp32.onnx", "net-int8.onnx"):
        assert chart.count(f">{name}</text>") == panels
    for unit in ("median latency, ms", "file size, MB", "SQNR against float, dB"):
        assert chart.count(f">{unit}") == 1
    for text in (
        "8.00 ms, p90 9.60",
        "4.00 ms, p90 4.80",
        "6.00 MB",
        "1.50 MB",
        "equal",
        "19.2 dB",
    ):
        assert chart.count(f">{text}</text>") == 1


def test_bars_of_float_rounding_do_not_dwarf_those_of_int8():
    chart, _ = charts(
        to_html([row("fp32.onnx", 8.0, sqnr_db=125.4), row("a.onnx", 4.0, sqnr_db=30.0)], HEADINGS)
    )
    assert ">125.4 dB</text>" in chart
    bars = re.findall(
        r"<title>[^<]*SQNR[^<]*</title><path d=\"M ([\d.]+) [\d.]+  L ([\d.]+) ", chart
    )
    full, half = (float(right) - float(left) for left, right in bars)
    assert full == pytest.approx(2 * half, rel=1e-3)


def test_a_name_that_is_too_long_for_a_phone_has_two_lines():
    wide, narrow = charts(to_html([row(LONG, 1.0)], HEADINGS))
    assert f">{LONG}</text>" in wide
    assert f">{LONG}</text>" not in narrow
    lines = re.findall(r">([^<]+)</text>", narrow)
    assert LONG in "".join(lines)


def test_what_is_not_known_is_left_out():
    bare = row("net.onnx", 1.0, size_bytes=None, sqnr_db=None, agreement=None, ratio=1.0)
    html = to_html([bare], HEADINGS)
    wide, _ = charts(html)
    assert ">file size" not in wide
    assert ">SQNR" not in wide
    assert "speed" not in pages.Page(html).text
    mixed, _ = charts(to_html([bare, INT8], HEADINGS))
    assert mixed.count(">unknown</text>") == 2


def test_the_table_holds_all_numbers_with_their_headings():
    html = to_html([FLOAT, INT8], HEADINGS)
    assert html.count('<td data-label="median ms" class="number">') == 2
    cells = re.findall(r'<td data-label="SQNR dB" class="number">([^<]*)</td>', html)
    assert cells == ["\N{INFINITY}", "19.2"]
