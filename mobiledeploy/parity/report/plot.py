"""The SQNR along the network as inline SVG: a line for all noise, a bar for each layer's own."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mobiledeploy.parity.types import LayerNoise

_WIDTH, _HEIGHT = 720, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 42, 8, 12, 28
_CEILING_DB = 60.0
_GRID_DB = 10


def layer_plot(layers: Sequence[LayerNoise]) -> str:
    """Return an `<svg>`: layers from left to right, dB upwards; each bar says its layer on hover.

    SQNRs above 60 dB are drawn at 60: there is nothing to see up there.
    """
    inner = _WIDTH - _LEFT - _RIGHT
    step = inner / max(1, len(layers))
    bars, points = [], []
    for index, layer in enumerate(layers):
        x = _LEFT + index * step
        y = _y(layer.own_sqnr_db)
        bars.append(
            f'<rect class="own" x="{x:.1f}" y="{y:.1f}" width="{max(1.0, step * 0.8):.1f}"'
            f' height="{_y(0) - y:.1f}"><title>{escape(_tip(layer))}</title></rect>'
        )
        points.append(f"{x + step * 0.4:.1f},{_y(layer.sqnr_db):.1f}")
    label = "SQNR in dB behind each layer, from the input to the logits"
    return "".join(
        (
            f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">',
            *_grid(),
            *bars,
            f'<polyline class="all" points="{" ".join(points)}"/>',
            f'<text x="{_LEFT}" y="{_HEIGHT - 8}">input</text>',
            f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 8}" text-anchor="end">logits</text>',
            "</svg>",
        )
    )


def _grid() -> list[str]:
    lines = []
    for db in range(0, int(_CEILING_DB) + 1, _GRID_DB):
        y = _y(db)
        lines.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>')
        lines.append(f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{db}</text>')
    return lines


def _y(db: float) -> float:
    """Return the height of an SQNR."""
    shown = min(max(db, 0.0), _CEILING_DB) if not math.isnan(db) else 0.0
    return round(_TOP + (1 - shown / _CEILING_DB) * (_HEIGHT - _TOP - _BOTTOM), 1)


def _tip(layer: LayerNoise) -> str:
    return (
        f"{layer.name}: {layer.sqnr_db:.1f} dB behind it, {layer.own_sqnr_db:.1f} dB its own noise,"
        f" {layer.sqnr_drop_db:.1f} dB lost"
    )
