"""The page of `sweep --html` in a browser: hover, filters, axes, the front, sorting."""

import json
from importlib.util import find_spec

import pytest
import real_parts
import sweep_results
from sweep_results import DEVICES

from mobiledeploy.sweep.page import to_html

pytestmark = pytest.mark.ci
WIDTHS = pytest.mark.parametrize("width", [1280, 390])


@pytest.fixture(scope="module")
def page():
    if find_spec("plotly") is None:
        real_parts.missing("plotly", 'pip install "mobiledeploy[html]"')
    return to_html(*sweep_results.shown(), DEVICES)


@pytest.fixture(params=[1280, 390])
def shown(request, browser, page, tmp_path):
    """The page in a window of 1280 and of 390 pixels."""
    browser.show(page, tmp_path, width=request.param, scheme="light")
    return browser


def drawn(browser, trace=2):
    """Return the coordinates of a trace: 0 is the front, 1 the pick, 2 all artifacts."""
    x, y = browser.evaluate(f"const t = chart.data[{trace}]; return [[...t.x], [...t.y]]")
    return list(zip(x, y, strict=True))


def choose(browser, selector, value):
    browser.evaluate(
        f"const e = document.querySelector({json.dumps(selector)}); e.value = {json.dumps(value)};"
        "e.dispatchEvent(new Event('change', {bubbles: true}))"
    )


def click(browser, selector):
    browser.evaluate(f"document.querySelector({json.dumps(selector)}).click()")


def listed(browser):
    """Return the indices of the rows that the table shows, in their order."""
    return browser.evaluate(
        "return [...document.querySelectorAll('#table tbody tr')]"
        ".filter(e => e.offsetHeight > 0).map(e => Number(e.dataset.row))"
    )


@WIDTHS
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_overflows_overlaps_is_cut_or_pale(problems, page, width, scheme):
    assert problems(page, width=width, scheme=scheme) == []


def test_the_chart_shows_latency_and_accuracy_with_the_front(shown):
    points = drawn(shown)
    assert len(points) == 8
    assert (1.5, 0.61) in points
    assert drawn(shown, trace=0) == [(0.9, 0.55), (1.5, 0.61), (2.5, 0.62), (4.0, 0.70)]
    assert drawn(shown, trace=1) == [(2.5, 0.62)]
    marks = shown.evaluate("return document.querySelectorAll('#chart .points path').length")
    assert marks == 8 + 1
    symbols = shown.evaluate("return [...chart.data[2].marker.symbol]")
    assert symbols[:4] == ["circle", "square", "circle-open", "square-open"]


def test_axes_can_be_chosen(shown):
    choose(shown, "#x", "size_mb")
    choose(shown, "#y", "sqnr_db")
    assert (1.0, 29.6) in drawn(shown)
    titles = shown.evaluate(
        "return [...document.querySelectorAll('#chart .xtitle, #chart .ytitle')]"
        ".map(e => e.textContent)"
    )
    assert titles == ["size, MB", "SQNR, dB"]
    choose(shown, "#device", "latency_1")
    assert drawn(shown)[0][0] == 6.0


def test_families_and_formats_can_be_hidden(shown):
    click(shown, "input[value=v2]")
    assert len(drawn(shown)) == 4
    assert listed(shown) == [4, 5, 6, 7]
    assert drawn(shown, trace=0) == [(0.9, 0.55), (2.5, 0.62)]  # the front of what is left
    click(shown, "input[value=pte]")
    assert listed(shown) == [4, 6]
    click(shown, "input[value=v2]")
    assert listed(shown) == [0, 2, 4, 6]


def test_the_table_can_be_sorted(shown):
    assert listed(shown) == list(range(8))
    choose(shown, "#sort", "latency_0")
    assert listed(shown) == [4, 0, 5, 1, 6, 7, 2, 3]
    click(shown, "th[data-axis=top1] button")
    assert listed(shown) == [2, 3, 6, 7, 0, 1, 4, 5]
    heading = "return document.querySelector('th[data-axis=top1]').ariaSort"
    assert shown.evaluate(heading) == "descending"
    click(shown, "th[data-axis=top1] button")
    assert listed(shown) == [5, 4, 1, 0, 7, 6, 3, 2]
    assert shown.evaluate(heading) == "ascending"


def test_hovering_names_the_artifact_and_its_figures(shown):
    text = shown.hover(
        "const mark = document.querySelectorAll('#chart .points path')[1 + 6];"
        "mark.scrollIntoView({block: 'center'});"
        "const box = mark.getBoundingClientRect();"
        "return [box.x + box.width / 2, box.y + box.height / 2]",
        "return document.querySelector('#chart .hovertext')?.textContent",
    )
    assert f"v3-small, 160 pixels, fast, {sweep_results.HOSTILE} (.onnx)" in text
    assert "top-1: 0.62" in text
    assert "latency on local, ms: 2.5" in text
