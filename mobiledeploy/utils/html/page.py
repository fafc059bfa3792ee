"""Render Jinja templates as self-contained HTML pages: no font, no request, and no script.

Only the page of a sweep has scripts; its policy names them by their digests. A page's template is
a file of the package that extends `utils/html/base.html.jinja`. Values are escaped; only a `Markup`
is taken as it is. A value that is missing raises an error.
"""

from __future__ import annotations

import math
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from mobiledeploy.utils.charts import inline_svg

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobiledeploy.utils.charts import Draw

WIDE_PX, NARROW_PX = 900, 350
"""Widths of a chart on a desk and on a phone."""


def render(template: str, **values: Any) -> str:
    """Return a page.

    Args:
        template: Path of the template in the package, for example "bench/compare.html.jinja".
        values: What the template shows.
    """
    return _environment().get_template(template).render(**values)


def chart(
    draw: Callable[[bool], Draw], height: Callable[[bool], float], *, name: str, label: str
) -> Markup:
    """Return a chart for a page: drawn for a desk and for a phone, of which CSS shows one.

    Args:
        draw: Returns what draws the chart; its argument is True for a phone.
        height: Returns the height in pixels; its argument is True for a phone.
        name: Unique in the page.
        label: What the chart shows, for screen readers.
    """
    wide = inline_svg(draw(False), WIDE_PX, height(False), name=f"{name}-wide", label=label)
    narrow = inline_svg(draw(True), NARROW_PX, height(True), name=f"{name}-narrow", label=label)
    html = f'<div class="chart wide-only">{wide}</div><div class="chart narrow-only">{narrow}</div>'
    return Markup(html)  # noqa: S704 - inline_svg escapes the labels


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("mobiledeploy", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = resources.files("mobiledeploy.utils.html").joinpath("style.css").read_text("utf-8")
    environment.globals["style"] = Markup(style)  # noqa: S704 - a file of the package
    environment.filters["breakable"] = _breakable
    environment.filters["number"] = _number
    return environment


def _breakable(name: str) -> Markup:
    """Return a name that lines may break at its underscores."""
    return Markup("_<wbr>").join(escape(part) for part in name.split("_"))


def _number(value: float, form: str = ".1f") -> str:
    """Return a number as text; a dash for NaN."""
    if math.isnan(value):
        return "\N{EN DASH}"
    return format(value, form).replace("inf", "\N{INFINITY}").replace("-", "\N{MINUS SIGN}")
