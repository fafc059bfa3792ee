"""Artifacts and devices side by side: a table, and latency against accuracy as a plot.

In: documents of `bench --json`. Out: rows; Markdown; HTML with an SVG. What int8 has cost comes
from the manifests beside the artifacts, where `mobiledeploy export` has written what it measured.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobiledeploy.utils.bubble_chart import Bubble, bubble_chart
from mobiledeploy.utils.files import sha256_of
from mobiledeploy.utils.json_numbers import decode_float

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One artifact on one device.

    Attributes:
        sqnr_db: Against float, as its export measured it; None where there is no manifest.
        agreement: With float, on the same images.
        size_bytes: Of the file; None where it is not there any more.
    """

    artifact: str
    device: str
    runtime: str
    median_ms: float
    p90_ms: float
    ratio: float
    size_bytes: int | None
    sqnr_db: float | None
    agreement: float | None

    @property
    def cells(self) -> tuple[str, ...]:
        """Return the row as text, in the order of `HEADINGS`."""
        return (
            self.artifact,
            self.device,
            self.runtime,
            f"{self.median_ms:.2f}",
            f"{self.p90_ms:.2f}",
            f"{self.ratio:.3f}",
            "" if self.size_bytes is None else f"{self.size_bytes / 1e6:.2f}",
            "" if self.sqnr_db is None else f"{self.sqnr_db:.1f}",
            "" if self.agreement is None else f"{self.agreement:.3f}",
        )


HEADINGS = (
    "artifact",
    "device",
    "runtime",
    "median ms",
    "p90 ms",
    "ratio to first",
    "MB",
    "SQNR dB",
    "agreement",
)


def rows_of(documents: Sequence[Document]) -> tuple[Row, ...]:
    """Return one row per artifact and device, in the order given."""
    return tuple(
        _row(entry, document["host"])
        for document in documents
        for entry in document["measurements"]
    )


def _row(entry: Mapping[str, Any], host: Mapping[str, Any]) -> Row:
    path = Path(entry["artifact"])
    accuracy = _accuracy(path, entry["artifact_sha256"])
    return Row(
        artifact=path.name,
        device=f"{host['place']}, {host['model'] or host['architecture']}",
        runtime=entry["runtime"],
        median_ms=entry["median_ms"],
        p90_ms=entry["p90_ms"],
        ratio=entry["ratio_to_first"]["median"],
        size_bytes=_size(path, entry["artifact_sha256"]),
        sqnr_db=accuracy.get("sqnr_db"),
        agreement=accuracy.get("agreement"),
    )


def _size(path: Path, sha256: str) -> int | None:
    """Return the size of what was measured; None where it is not there any more."""
    try:
        return path.stat().st_size if sha256_of(path) == sha256 else None
    except OSError:
        return None


def _accuracy(path: Path, sha256: str) -> Mapping[str, float]:
    """Return what the artifact's manifest says that int8 has cost; nothing if it is of another."""
    try:
        manifest = json.loads(path.with_name(path.name + ".json").read_text())
        if manifest["artifact"]["sha256"] != sha256:
            return {}
        (with_float,) = (
            comparison["metrics"]
            for rung in manifest["parity"]["rungs"]
            for comparison in rung["comparisons"]
            if rung["artifact"] == path.name and comparison["reference"] == "float"
        )
        return {
            "sqnr_db": decode_float(with_float["sqnr_db"]),
            "agreement": float(with_float["top1_agreement"]),
        }
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}


def to_markdown(rows: Sequence[Row]) -> str:
    """Return the table as Markdown."""
    lines = [HEADINGS, ("---",) * len(HEADINGS), *(row.cells for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def to_html(rows: Sequence[Row]) -> str:
    """Return one page: the plot, and the table below it."""
    head = "".join(f"<th>{escape(text)}</th>" for text in HEADINGS)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in row.cells)}</tr>\n" for row in rows
    )
    return (
        '<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>mobiledeploy bench</title>\n'
        "<style>body{font:15px sans-serif;margin:2em}td,th{padding:.2em .8em;text-align:right}"
        "td:nth-child(-n+3),th:nth-child(-n+3){text-align:left}tr:nth-child(even){background:#f4f4f4}"
        f"</style>\n{to_svg(rows)}\n<table><tr>{head}</tr>\n{body}</table></html>\n"
    )


def to_svg(rows: Sequence[Row]) -> str:
    """Return latency against SQNR; a bubble's area is the file's size, its colour the device."""
    bubbles = [
        Bubble(
            x=row.median_ms,
            y=row.sqnr_db,
            area=float(row.size_bytes or 0),
            label=row.artifact,
            group=row.device,
        )
        for row in rows
        if row.sqnr_db is not None and math.isfinite(row.sqnr_db)
    ]
    left_out = len(rows) - len(bubbles)
    note = f"; {left_out} of {len(rows)} without SQNR" if left_out else ""
    return bubble_chart(
        bubbles, x_title=f"median latency, ms{note}", y_title="SQNR against float, dB"
    )
