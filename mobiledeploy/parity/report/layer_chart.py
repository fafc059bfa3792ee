"""The chart of quantization noise: the SQNR along the network, and the layers where it drops."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from matplotlib.ticker import MaxNLocator

from mobiledeploy.utils.charts import (
    COLOURS,
    FONT_PX,
    bars_below_labels,
    bars_height,
    clean_axes,
    wrapped,
)
from mobiledeploy.utils.html.page import NARROW_PX, WIDE_PX, chart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mobiledeploy.parity.types import LayerNoise
    from mobiledeploy.utils.charts import Draw

_CEILING_DB = 60.0  # above it, nothing but float rounding is left to see
_NAMED = 6
_PROFILE_PX, _AXES_PX = 280, 100
_BADGE_PX = 20


def layer_chart(layers: Sequence[LayerNoise]) -> Markup:
    """Return a chart for a page: the SQNR behind each layer, and the worst layers by name."""
    worst = worst_layers(layers, _NAMED)

    def draw(narrow: bool) -> Draw:
        def on(figure: Figure) -> dict[Artist, str]:
            heights = (_PROFILE_PX, bars_height(names(narrow)))
            top, bottom = figure.subplots(2, 1, height_ratios=heights)
            gap = _BADGE_PX * len(layers) / (0.85 * width(narrow))
            _drops(bottom, worst, names(narrow), 0.85 * width(narrow))
            return _profile(top, layers, worst, gap=gap)

        return on

    def width(narrow: bool) -> float:
        return NARROW_PX if narrow else WIDE_PX

    def names(narrow: bool) -> list[str]:
        numbered = (f"{rank}  {layer.name}" for rank, layer in enumerate(worst, 1))
        return [wrapped(name, 0.9 * width(narrow)) for name in numbered]

    def height(narrow: bool) -> float:
        return _PROFILE_PX + bars_height(names(narrow)) + _AXES_PX

    label = "SQNR in dB behind each layer, from the input to the logits, and its largest drops"
    return chart(draw, height, name="layers", label=label)


def worst_layers(layers: Sequence[LayerNoise], count: int) -> list[LayerNoise]:
    """Return the layers where the SQNR drops most, the largest drop first."""
    finite = [layer for layer in layers if not math.isnan(layer.sqnr_drop_db)]
    return sorted(finite, key=lambda layer: -layer.sqnr_drop_db)[:count]


def _profile(
    axes: Axes, layers: Sequence[LayerNoise], worst: Sequence[LayerNoise], *, gap: float
) -> dict[Artist, str]:
    """Draw a line for all noise, bars for the layers' own, and numbers for the worst layers."""
    places = range(1, len(layers) + 1)
    own = [_shown(layer.own_sqnr_db) for layer in layers]
    total = [_shown(layer.sqnr_db) for layer in layers]
    bars = axes.bar(places, own, width=0.8, color=COLOURS["bar"], label="own noise")
    axes.plot(places, total, color=COLOURS["mark"], linewidth=2, label="all noise up to here")
    numbered = sorted((layers.index(layer), rank) for rank, layer in enumerate(worst, 1))
    ceiling = max([*own, *total], default=1.0) or 1.0
    for (index, rank), at in zip(
        numbered, _spread([index + 1 for index, _ in numbered], gap, len(layers)), strict=True
    ):
        axes.annotate(
            str(rank),
            (index + 1, total[index]),
            xytext=(at, 1.1 * ceiling),
            ha="center",
            va="center",
            fontsize=FONT_PX - 1,
            color=COLOURS["ground"],
            bbox={"boxstyle": "circle,pad=0.25", "facecolor": COLOURS["warm"], "linewidth": 0},
            arrowprops={"arrowstyle": "-", "color": COLOURS["warm"], "shrinkA": 0, "shrinkB": 0},
        )
    axes.set_xlim(0.4, len(layers) + 0.6)
    axes.set_ylim(0, 1.18 * ceiling)
    axes.set_yticks([tick for tick in MaxNLocator(6).tick_values(0, ceiling) if tick <= ceiling])
    axes.set_ylabel("SQNR, dB")
    axes.set_xlabel("layer, from the input to the logits")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    clean_axes(axes, grid="y")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderpad=0, columnspacing=1.2)
    return {
        bar: f"{layer.name}: {layer.sqnr_db:.1f} dB behind it, {layer.own_sqnr_db:.1f} dB of its"
        f" own, drop {layer.sqnr_drop_db:.1f} dB"
        for bar, layer in zip(bars, layers, strict=True)
    }


def _drops(axes: Axes, worst: Sequence[LayerNoise], names: Sequence[str], width: float) -> None:
    """Draw a bar for each of the worst layers."""
    drops = [layer.sqnr_drop_db for layer in worst]
    bars_below_labels(
        axes,
        names,
        drops,
        [f"{drop:.1f} dB" for drop in drops],
        colours=[COLOURS["warm"]] * len(worst),
        unit="drop of the SQNR in the layer, dB",
        width=width,
    )


def _shown(db: float) -> float:
    """Return an SQNR as it is drawn."""
    return 0.0 if math.isnan(db) else min(max(db, 0.0), _CEILING_DB)


def _spread(places: Sequence[int], gap: float, last: int) -> list[float]:
    """Return ascending places moved apart until neighbours are at least `gap` apart."""
    spread: list[float] = []
    for place in places:
        spread.append(max(float(place), spread[-1] + gap) if spread else float(place))
    limit = float(last)
    for position in reversed(range(len(spread))):
        spread[position] = min(spread[position], limit)
        limit = spread[position] - gap
    return spread
