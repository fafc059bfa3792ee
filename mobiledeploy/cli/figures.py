"""Tables in which each row has a title above its figures, so that 80 columns hold long names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mobiledeploy.cli.output import print_result

if TYPE_CHECKING:
    from collections.abc import Sequence

_INDENT = "  "


@dataclass(frozen=True, slots=True, kw_only=True)
class TitledRow:
    """One row of a table.

    Attributes:
        title: Printed on a line of its own, in bold.
        details: Further lines below the title.
        figures: One text per heading.
    """

    title: str
    details: Sequence[str] = ()
    figures: Sequence[str]


def print_figures(headings: Sequence[str], rows: Sequence[TitledRow]) -> None:
    """Print a table of results.

    Args:
        headings: One per column, of one or two lines.
        rows: In the order of the table.
    """
    from rich.text import Text

    upper = [heading.partition("\n")[0] for heading in headings]
    lower = [heading.partition("\n")[2] for heading in headings]
    columns = list(zip(upper, lower, *(row.figures for row in rows), strict=True))
    widths = [max(map(len, column)) for column in columns]

    def line(cells: Sequence[str]) -> str:
        padded = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        return (_INDENT + _INDENT.join(padded)).rstrip()

    print_result(line(upper))
    if any(lower):
        print_result(line(lower))
    for row in rows:
        print_result(Text(row.title, style="bold"))
        for detail in row.details:
            print_result(_INDENT + detail)
        print_result(line(row.figures))
