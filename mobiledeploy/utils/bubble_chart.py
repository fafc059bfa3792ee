"""A chart of bubbles as SVG: two figures, a size and a colour each.

In: `Bubble`s. Out: the text of an SVG, which stands by itself in a page.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_XMLNS = "http://www.w3.org/2000/svg"
_WIDTH, _HEIGHT = 720, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 690, 32, 356
_COLOURS = ("#1b6ca8", "#c8553d", "#588157", "#7b2d8b", "#b8860b", "#444444")
_SMALLEST, _LARGEST = 5, 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Bubble:
    """One point. `x` is shown on a logarithmic axis; bubbles of one `group` share a colour.

    Where many lie close together, `labelled` leaves the label to the tooltip.
    """

    x: float
    y: float
    area: float
    label: str
    group: str
    labelled: bool = True


def bubble_chart(bubbles: Sequence[Bubble], *, x_title: str, y_title: str) -> str:
    """Return an SVG; without bubbles it has axes and nothing else."""
    middle = (_TOP + _BOTTOM) / 2
    parts = [
        f'<svg xmlns="{_XMLNS}" width="{_WIDTH}" height="{_HEIGHT}" font-size="12">',
        f'<path d="M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}" fill="none" stroke="#888"/>',
        _text((_LEFT + _RIGHT) / 2, _HEIGHT - 12, x_title),
        _text(14, middle, y_title, extra=f' transform="rotate(-90 14 {middle})"'),
        *(_contents(bubbles) if bubbles else ()),
        "</svg>",
    ]
    return "\n".join(parts)


def _contents(bubbles: Sequence[Bubble]) -> Iterator[str]:
    across = _Axis([math.log10(b.x) for b in bubbles], _LEFT, _RIGHT)
    up = _Axis([b.y for b in bubbles], _BOTTOM, _TOP)
    for end in (across.low, across.high):
        yield _text(across.at(end), _BOTTOM + 18, f"{10**end:.2f}")
    for end in (up.low, up.high):
        yield _text(_LEFT - 8, up.at(end), f"{end:.1f}", anchor="end")
    groups = list(dict.fromkeys(bubble.group for bubble in bubbles))
    colours = {group: _COLOURS[i % len(_COLOURS)] for i, group in enumerate(groups)}
    largest = max(bubble.area for bubble in bubbles) or 1
    for bubble in bubbles:
        x, y = across.at(math.log10(bubble.x)), up.at(bubble.y)
        radius = _SMALLEST + (_LARGEST - _SMALLEST) * math.sqrt(bubble.area / largest)
        title = escape(f"{bubble.label}, {bubble.group}: {bubble.x:.2f}, {bubble.y:.2f}")
        colour = colours[bubble.group]
        yield (
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{colour}"'
            f' fill-opacity="0.55" stroke="{colour}"><title>{title}</title></circle>'
        )
        if bubble.labelled:
            yield _text(x, y - radius - 4, bubble.label)
    for row, (group, colour) in enumerate(colours.items()):
        line = _TOP + 14 + 16 * row
        yield _text(_LEFT + 12, line, f"● {group}", anchor="start", extra=f' fill="{colour}"')


def _text(x: float, y: float, text: str, *, anchor: str = "middle", extra: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{extra}>{escape(text)}</text>'


class _Axis:
    """Maps values to pixels; a tenth of the range is left free at both ends."""

    def __init__(self, values: Sequence[float], first: float, last: float) -> None:
        room = 0.1 * (max(values) - min(values)) or 0.1 * abs(values[0]) or 1.0
        self.low, self.high = min(values) - room, max(values) + room
        self._first, self._last = first, last

    def at(self, value: float) -> float:
        """Return the pixel of a value."""
        share = (value - self.low) / (self.high - self.low)
        return self._first + share * (self._last - self._first)
