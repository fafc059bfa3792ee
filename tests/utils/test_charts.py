"""Charts as SVG: deterministic, escaped, in the colours of the page, and within their frame."""

import re
from xml.etree import ElementTree as ET

import pytest

from mobiledeploy.utils.charts import (
    COLOURS,
    bars_below_labels,
    bars_height,
    clean_axes,
    inline_svg,
    svg,
    wrapped,
)

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = '<b>&"\'$x_1$ #2563c4 id="x"\x07\ud800'


def draw(figure):
    axes = figure.subplots()
    bars = axes.bar([1, 2], [3, 4], color=COLOURS["bar"])
    axes.set_ylabel("#2563c4 in a text")
    clean_axes(axes, grid="y")
    return {bars[0]: f"first {HOSTILE}"}


def bars(labels, values, **options):
    given = {"texts": [str(value) for value in values], "unit": "ms", "width": 250} | options
    given.setdefault("colours", [COLOURS["bar"]] * len(labels))

    def draw_bars(figure):
        drawn = bars_below_labels(figure.subplots(), labels, values, **given)
        return {bar: f"bar {number}" for number, bar in enumerate(drawn)}

    return draw_bars


def lengths(chart):
    """Return how far the bars reach to the right of 0, in pixels."""
    found = []
    for group in ET.fromstring(chart).iter(f"{SVG}g"):
        title = group.find(f"{SVG}title")
        if title is not None and title.text.startswith("bar "):
            xs = [float(x) for x in re.findall(r"[ML] ([\d.]+)", group.find(f"{SVG}path").get("d"))]
            found.append(max(xs) - min(xs))
    return found


def test_the_same_chart_has_the_same_bytes_and_no_date():
    first = svg(draw, 300, 200)
    assert first == svg(draw, 300, 200)
    assert first != svg(draw, 300, 201)
    assert "20" + "26" not in first
    assert "metadata" not in first


def test_a_file_is_a_whole_svg_of_the_given_size():
    root = ET.fromstring(svg(draw, 300, 200))
    assert root.tag == f"{SVG}svg"
    assert root.get("viewBox") == "0 0 300 200"
    assert root.find(f".//{SVG}style") is None


def test_an_inline_chart_takes_its_colours_from_the_page():
    text = inline_svg(draw, 300, 200, name="a", label="two <bars>")
    assert "fill: var(--bar)" in text
    assert "stroke: var(--line)" in text
    styles = " ".join(re.findall(r'style="([^"]*)"', text))
    assert not re.search("#[0-9a-f]{6}", styles)
    assert "#2563c4 in a text" in text  # texts are left as they are
    assert 'role="img" aria-label="two &lt;bars&gt;"' in text
    assert "http" not in text


def test_the_colours_are_the_light_ones_of_the_style_sheet(repository):
    style = (repository / "mobiledeploy" / "utils" / "html" / "style.css").read_text()
    parts = style.split("@media")[:2]
    light, dark = (dict(re.findall(r"--(\w+): (#\w{6})", part)) for part in parts)
    assert {name: light[name] for name in COLOURS} == COLOURS
    assert set(COLOURS) <= set(dark)


def test_ids_begin_with_the_chart_s_name_and_all_references_lead_somewhere():
    text = inline_svg(draw, 300, 200, name="latency", label="")
    elements = list(ET.fromstring(text).iter())
    ids = [element.get("id") for element in elements if "id" in element.attrib]
    values = " ".join(value for element in elements for value in element.attrib.values())
    references = re.findall(r"url\(#([^)]+)\)", values)
    assert ids
    assert set(references) == set(ids)
    assert all(name.startswith("latency-") for name in ids)


def test_tooltips_are_escaped():
    for text in (svg(draw, 300, 200), inline_svg(draw, 300, 200, name="a", label="")):
        (tip,) = [e.text for e in ET.fromstring(text).iter() if e.tag.endswith("title")]
        assert tip == f"first {HOSTILE}".replace("\x07", "\ufffd").replace("\ud800", "\ufffd")


def test_bars_are_as_long_as_their_values():
    first, second, third = lengths(svg(bars(["a", "b", "c"], [1.0, 2.0, 4.0]), 300, 200))
    assert second == pytest.approx(2 * first, rel=1e-3)
    assert third == pytest.approx(4 * first, rel=1e-3)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_bar_that_is_not_finite_is_left_out_and_its_text_is_not(value):
    chart = svg(bars(["a", "b"], [1.0, value], texts=["one", "endless"]), 300, 200)
    assert lengths(chart)[1] == 0
    assert "endless" in chart


def test_a_line_leads_from_a_bar_to_its_end():
    with_lines = svg(bars(["a"], [1.0], ends=[1.5]), 300, 100)
    without = svg(bars(["a"], [1.0], ends=[1.0]), 300, 100)
    assert with_lines.count("<path") == without.count("<path") + 1


@pytest.mark.parametrize("values", [[], [0.0], [-1.0, 1.0]])
def test_no_bars_empty_bars_and_negative_bars_make_a_chart(values):
    chart = svg(bars(["x"] * len(values), values), 300, 200)
    assert len(lengths(chart)) == len(values)


def test_labels_show_what_they_are_given():
    chart = ET.fromstring(svg(bars([wrapped(HOSTILE, 1000)], [1.0]), 400, 200))
    shown = " ".join(chart.itertext())
    assert "<b>&" in shown
    assert "$x_1$" in shown


def test_long_labels_are_wrapped_and_bars_get_the_room_for_them():
    label = wrapped("mobilenet_v2_0.25_32-rowsd2a361d9-10classes-random-int8.onnx", 300)
    assert label.replace("\n", "") == "mobilenet_v2_0.25_32-rowsd2a361d9-10classes-random-int8.onnx"
    assert all(len(line) <= 40 for line in label.split("\n"))
    assert bars_height([label]) > bars_height(["short"])
    assert bars_height(["short", "short"]) == 2 * bars_height(["short"])
