"""Pages of Jinja templates: escaped, and strict about what is missing."""

import jinja2
import pages
import pytest

from mobiledeploy.utils.html import page
from mobiledeploy.utils.html.page import chart, render


def draw(narrow):
    def on(figure):
        axes = figure.subplots()
        axes.set_xlabel("narrow" if narrow else "wide")
        return {}

    return on


@pytest.fixture
def from_string():
    return page._environment().from_string


def test_values_are_escaped(from_string):
    assert from_string("{{ name }}").render(name="<b>") == "&lt;b&gt;"


def test_a_missing_value_is_an_error(from_string):
    with pytest.raises(jinja2.UndefinedError):
        from_string("{{ name }}").render()


def test_names_may_break_at_underscores_and_stay_escaped(from_string):
    assert from_string("{{ n | breakable }}").render(n="a_<b>_c") == "a_<wbr>&lt;b&gt;_<wbr>c"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.25, "1.2"),
        (-1.0, "\N{MINUS SIGN}1.0"),
        (float("inf"), "\N{INFINITY}"),
        (float("nan"), "\N{EN DASH}"),
    ],
)
def test_numbers_that_are_not_finite_are_shown_as_signs(from_string, value, text):
    assert from_string("{{ v | number }}").render(v=value) == text


def test_a_chart_is_there_for_a_desk_and_for_a_phone():
    html = chart(draw, lambda narrow: 300 if narrow else 200, name="a", label="what it shows")
    assert html.count("<svg") == 2
    assert 'viewBox="0 0 900 200"' in html
    assert 'viewBox="0 0 350 300"' in html
    assert html.index("wide-only") < html.index("wide</text>")
    assert html.index("narrow-only") < html.index("narrow</text>")


def test_the_base_template_makes_a_self_contained_page():
    found = pages.check_self_contained(render("utils/html/base.html.jinja"))
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in (
        found.tags
    )
    assert "prefers-color-scheme: dark" in found.text
    assert "max-width: 48rem" in found.text
