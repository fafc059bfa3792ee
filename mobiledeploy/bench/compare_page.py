"""The HTML page of `mobiledeploy compare`: verdict, chart and table."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, NamedTuple

from mobiledeploy.utils.charts import COLOURS, bars_below_labels, bars_height, wrapped
from mobiledeploy.utils.html.page import NARROW_PX, WIDE_PX, chart, render

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from markupsafe import Markup
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mobiledeploy.bench.compare import Row
    from mobiledeploy.utils.charts import Draw

_AXIS_PX = 56
_CEILING_DB = 60.0  # above it is float rounding, whose bars would dwarf those of int8


class Card(NamedTuple):
    """A figure of the fastest artifact on a device."""

    name: str
    value: str
    detail: str


class _Panel(NamedTuple):
    """One chart of bars.

    Attributes:
        unit: Title of its axis.
        value: Returns a row's value; None where it is not known.
        text: Returns what stands behind a row's bar; only for known values.
        share: Width relative to the others on a desk.
        ceiling: Where bars end at the latest.
    """

    unit: str
    value: Callable[[Row], float | None]
    text: Callable[[Row], str]
    share: float = 1.0
    ceiling: float = math.inf


_PANELS = (
    _Panel(
        "median latency, ms (line: to p90)",
        lambda row: row.median_ms,
        lambda row: f"{row.median_ms:.2f} ms, p90 {row.p90_ms:.2f}",
        share=1.6,
    ),
    _Panel(
        "file size, MB",
        lambda row: None if row.size_bytes is None else row.size_bytes / 1e6,
        lambda row: f"{(row.size_bytes or 0) / 1e6:.2f} MB",
    ),
    _Panel(
        f"SQNR against float, dB (bars end at {_CEILING_DB:g})",
        lambda row: row.sqnr_db,
        lambda row: "equal" if row.sqnr_db == math.inf else f"{row.sqnr_db:.1f} dB",
        ceiling=_CEILING_DB,
    ),
)


def to_html(rows: Sequence[Row], headings: Sequence[str]) -> str:
    """Return the page.

    Args:
        rows: One per artifact and device.
        headings: Of the table: the names of `Row.cells`.
    """
    fastest = _fastest(rows)
    return render(
        "bench/compare.html.jinja",
        headline=_headline(rows, fastest),
        fastest=[(row, list(_cards(row))) for row in fastest],
        chart=_chart(rows, {id(row) for row in fastest}),
        headings=headings,
        rows=[["\N{INFINITY}" if cell == "inf" else cell for cell in row.cells] for row in rows],
    )


def _fastest(rows: Sequence[Row]) -> list[Row]:
    """Return the artifact with the lowest median latency on each device."""
    devices = dict.fromkeys(row.device for row in rows)
    return [
        min((row for row in rows if row.device == device), key=lambda row: row.median_ms)
        for device in devices
    ]


def _headline(rows: Sequence[Row], fastest: Sequence[Row]) -> str:
    artifacts = len({row.artifact for row in rows})
    if artifacts > 1 and len({row.artifact for row in fastest}) == 1:
        on = "" if len(fastest) == 1 else " on every device"
        return f"{fastest[0].artifact} has the lowest median latency{on}"
    many = f"{artifacts} artifacts" if artifacts > 1 else "1 artifact"
    return f"{many} on {len(fastest)} device{'s' * (len(fastest) > 1)}"


def _cards(row: Row) -> Iterator[Card]:
    yield Card("median latency", f"{row.median_ms:.2f} ms", f"p90 {row.p90_ms:.2f} ms")
    if row.ratio != 1:
        times = f"{1 / row.ratio:.2f} \N{MULTIPLICATION SIGN}"
        yield Card("speed", times, "as fast as the first artifact")
    if row.size_bytes is not None:
        yield Card("size", f"{row.size_bytes / 1e6:.2f} MB", row.runtime)
    if row.sqnr_db is not None:
        sqnr = "equal logits" if row.sqnr_db == math.inf else f"{row.sqnr_db:.1f} dB"
        measured = "measured by export"
        if row.agreement is None:
            yield Card("SQNR against float", sqnr, measured)
        else:
            shown = sqnr if row.sqnr_db == math.inf else f"SQNR {sqnr}"
            yield Card("agreement with float", f"{row.agreement:.1%}", f"{shown}, {measured}")


def _chart(rows: Sequence[Row], marked: set[int]) -> Markup:
    """Return bars for latency, size and SQNR; a panel that no row has a value for is left out."""
    panels = [panel for panel in _PANELS if any(panel.value(row) is not None for row in rows)]
    colours = [COLOURS["mark" if id(row) in marked else "bar"] for row in rows]

    def labels(narrow: bool) -> list[str]:
        several = len({row.device for row in rows}) > 1
        width = 0.9 * (NARROW_PX if narrow else WIDE_PX)
        texts = ((row.artifact, row.device) if several else (row.artifact,) for row in rows)
        return ["\n".join(wrapped(text, width) for text in each) for each in texts]

    def draw(narrow: bool) -> Draw:
        def on(figure: Figure) -> dict[Artist, str]:
            shape = (len(panels), 1) if narrow else (1, len(panels))
            shares = [1.0 if narrow else panel.share for panel in panels]
            width = 0.85 * (NARROW_PX if narrow else WIDE_PX / sum(shares))
            axes = figure.subplots(
                *shape, squeeze=False, width_ratios=None if narrow else shares
            ).flat
            tooltips: dict[Artist, str] = {}
            shown = labels(narrow)
            for panel, share, each in zip(panels, shares, axes, strict=True):
                tooltips |= _draw_panel(each, panel, rows, shown, colours, width * share)
                if not narrow:  # side by side, one column of labels will do
                    shown = [re.sub("[^\n]", "", label) for label in shown]
            return tooltips

        return on

    def height(narrow: bool) -> float:
        return (len(panels) if narrow else 1) * (bars_height(labels(narrow)) + _AXIS_PX)

    label = "Bars of median latency, file size and SQNR against float, one per artifact and device"
    return chart(draw, height, name="compare", label=label)


def _draw_panel(
    axes: Axes,
    panel: _Panel,
    rows: Sequence[Row],
    labels: Sequence[str],
    colours: Sequence[str],
    width: float,
) -> dict[Artist, str]:
    values = [panel.value(row) for row in rows]
    bars = bars_below_labels(
        axes,
        labels,
        [math.nan if value is None else min(value, panel.ceiling) for value in values],
        [
            "unknown" if value is None else panel.text(row)
            for row, value in zip(rows, values, strict=True)
        ],
        colours=colours,
        unit=panel.unit,
        width=width,
        ends=[row.p90_ms for row in rows] if panel is _PANELS[0] else None,
    )
    return {
        bar: f"{row.artifact}, {row.device}: {panel.unit} {value}"
        for bar, row, value in zip(bars, rows, values, strict=True)
    }
