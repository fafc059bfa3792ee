"""SVG charts by matplotlib, in the colours of `utils/html/style.css`.

A chart is drawn by a function that gets an empty matplotlib figure. `svg` returns it as a file of
its own; `inline_svg` returns it for an HTML page, where its colours follow the page's light or dark
scheme. The same input gives the same bytes.

Importing this module imports matplotlib, which takes about half a second.
"""

from __future__ import annotations

import io
import math
import re
import textwrap
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mobiledeploy.utils.quiet import quietly
from mobiledeploy.utils.xml_text import xml_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.patches import Rectangle

    Draw = Callable[[Figure], Mapping[Artist, str]]
    """Draws on an empty figure; returns tooltips of what it drew."""

# the light colours of style.css, by the names of its variables
COLOURS = {
    "ground": "#ffffff",
    "ink": "#1b1f24",
    "soft": "#5c6670",
    "line": "#d9dee3",
    "mark": "#2563c4",
    "bar": "#b9cdec",
    "warm": "#b45309",
    "cool": "#0f766e",
}
FONT_PX = 12

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "mobiledeploy",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",  # wider than most fonts: what fits in it fits in others
    "font.size": FONT_PX,
    "axes.labelsize": FONT_PX,
    "axes.titlesize": FONT_PX,
    "xtick.labelsize": FONT_PX,
    "ytick.labelsize": FONT_PX,
    "legend.fontsize": FONT_PX,
    "legend.frameon": False,
    "text.color": COLOURS["ink"],
    "axes.labelcolor": COLOURS["soft"],
    "xtick.color": COLOURS["soft"],
    "ytick.color": COLOURS["soft"],
    "axes.edgecolor": COLOURS["line"],
    "axes.facecolor": "none",
    "figure.facecolor": COLOURS["ground"],
    "grid.color": COLOURS["line"],
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "figure.constrained_layout.use": True,
}
_POINTS_PER_INCH = 72  # a point is a pixel of the SVG
_LINE_PX, _BAR_PX, _GAP_PX = 15, 13, 11
_CHARACTER_PX = 7.5  # of most letters in DejaVu Sans
_MOST_ROOM = 0.6  # of a chart, for texts behind bars
_SVG = "http://www.w3.org/2000/svg"
_XLINK = "{http://www.w3.org/1999/xlink}href"
ET.register_namespace("", _SVG)
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def svg(draw: Draw, width: float, height: float) -> str:
    """Return a chart as the text of an SVG file, on a white ground.

    Args:
        draw: Draws on an empty figure.
        width: In pixels.
        height: In pixels.
    """
    return ET.tostring(_drawn(draw, width, height), encoding="unicode") + "\n"


def inline_svg(draw: Draw, width: float, height: float, *, name: str, label: str) -> str:
    """Return a chart as an `<svg>` element for a page with the variables of `style.css`.

    Args:
        draw: Draws on an empty figure.
        width: In pixels; the page may scale it.
        height: In pixels.
        name: Unique in the page: the element's ids begin with it.
        label: What the chart shows, for screen readers.
    """
    root = _drawn(draw, width, height)
    for size in ("width", "height"):
        del root.attrib[size]
    root.attrib |= {"role": "img", "aria-label": label}
    _remove(root, lambda element: element.get("id") == "patch_1")  # the figure's background
    for element in root.iter():
        if style := element.get("style"):
            for variable, colour in COLOURS.items():
                style = style.replace(colour, f"var(--{variable})")
            element.set("style", style)
    _make_ids_unique(root, name)
    return ET.tostring(root, encoding="unicode").replace(f' xmlns="{_SVG}"', "", 1)


def wrapped(label: str, width: float) -> str:
    """Return a label, broken into lines that fit into a number of pixels."""
    return "\n".join(textwrap.wrap(xml_text(label), max(1, int(width / _CHARACTER_PX))))


def bars_height(labels: Sequence[str]) -> float:
    """Return the height in pixels that `bars_below_labels` needs, without its axis."""
    return len(labels) * _row_height(labels)


def _row_height(labels: Sequence[str]) -> float:
    lines = max((label.count("\n") + 1 for label in labels), default=1)
    return lines * _LINE_PX + _BAR_PX + _GAP_PX


def bars_below_labels(
    axes: Axes,
    labels: Sequence[str],
    values: Sequence[float],
    texts: Sequence[str],
    *,
    colours: Sequence[str],
    unit: str,
    width: float,
    ends: Sequence[float] | None = None,
) -> list[Rectangle]:
    """Draw horizontal bars from 0, each below its label and followed by its text.

    Labels have lines of their own, so that long ones fit into narrow charts (see `wrapped`).

    Args:
        axes: Empty.
        labels: One per bar, from the top.
        values: Lengths; a bar whose value is not finite is left out.
        texts: What stands behind each bar.
        colours: One per bar.
        unit: Title of the value axis.
        width: Of the axes in pixels, roughly: room for the texts is taken from it.
        ends: Where a thin line from each bar's end leads to; no lines by default.

    Returns:
        The bars.
    """
    lengths = [value if math.isfinite(value) else 0.0 for value in values]
    row_px = _row_height(labels)
    centres = [row + (row_px - _GAP_PX - _BAR_PX / 2) / row_px for row in range(len(labels))]
    bars = axes.barh(centres, lengths, height=_BAR_PX / row_px, color=list(colours))
    for row, (centre, length) in enumerate(zip(centres, lengths, strict=True)):
        end = length if ends is None else max(length, ends[row])
        if end > length:
            axes.plot([length, end], [centre, centre], color=COLOURS["soft"], linewidth=1.5)
        axes.annotate(
            texts[row],
            (max(end, 0.0), centre),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            color=COLOURS["soft"],
        ).set_in_layout(False)
        axes.annotate(
            labels[row],
            (0, centre),
            xycoords=("axes fraction", "data"),
            xytext=(0, _BAR_PX / 2 + 2),
            textcoords="offset points",
            va="bottom",
        ).set_in_layout(False)
    longest = max([*lengths, *(ends or ())], default=0.0) or 1.0
    lowest = min(lengths, default=0.0)
    room = (_CHARACTER_PX * max(map(len, texts), default=0) + 10) / width
    axes.set_xlim(min(0.0, 1.05 * lowest), longest / (1 - min(room, _MOST_ROOM)))
    axes.set_ylim(max(1, len(labels)), 0)
    axes.set_yticks([])
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set_xlabel(unit)
    clean_axes(axes, grid="x")
    return list(bars)


def clean_axes(axes: Axes, *, grid: str) -> None:
    """Give axes grid lines for "x" or "y", and remove the spine that these make redundant."""
    axes.grid(axis=grid, linewidth=1)  # type: ignore[arg-type]
    axes.spines["bottom" if grid == "x" else "left"].set_visible(False)


def _drawn(draw: Draw, width: float, height: float) -> ET.Element:
    """Return a chart as a tree, without what would disturb a page: metadata and style sheets."""
    buffer = io.BytesIO()
    with mpl.rc_context(_STYLE), quietly():  # matplotlib logs that it builds its font cache
        figure = Figure(figsize=(width / _POINTS_PER_INCH, height / _POINTS_PER_INCH))
        tooltips = draw(figure)
        for number, artist in enumerate(tooltips):
            artist.set_gid(f"tooltip-{number}")
        figure.savefig(buffer, format="svg", metadata=_NO_METADATA)
    text = buffer.getvalue().decode().replace("'DejaVu Sans'", "system-ui, sans-serif")
    root = ET.fromstring(text)  # noqa: S314 - matplotlib wrote it
    _remove(root, lambda element: element.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"))
    for element in root.iter():
        if _XLINK in element.attrib:
            element.set("href", element.attrib.pop(_XLINK))
    groups = {element.get("id"): element for element in root.iter()}
    for number, tip in enumerate(tooltips.values()):
        title = ET.Element(f"{{{_SVG}}}title")
        title.text = xml_text(tip)
        groups[f"tooltip-{number}"].insert(0, title)
    return root


def _make_ids_unique(root: ET.Element, prefix: str) -> None:
    """Prefix the ids that something refers to, and remove the others."""
    references = ("href", "clip-path")
    found = (element.get(name, "") for element in root.iter() for name in references)
    used = {match[1] for value in found if (match := re.search(r"#([^)]+)", value))}
    for element in root.iter():
        name = element.attrib.pop("id", None)
        if name in used:
            element.set("id", f"{prefix}-{name}")
        for reference in set(references) & set(element.attrib):
            element.set(reference, element.get(reference, "").replace("#", f"#{prefix}-"))


def _remove(root: ET.Element, unwanted: Callable[[ET.Element], bool]) -> None:
    for parent in list(root.iter()):
        for child in list(parent):
            if unwanted(child):
                parent.remove(child)
