"""The HTML page of `mobiledeploy sweep`: the pick, an interactive chart, a table to sort.

The chart is drawn by plotly.js, which the page contains: it opens without a network. The table is
plain HTML, so that it can be read without JavaScript, too. `page.html.jinja` is the template.
"""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import resources
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

from mobiledeploy.errors import UsageError
from mobiledeploy.sweep.pick import no_pick, reason
from mobiledeploy.utils.html.page import render

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mobiledeploy.sweep.pick import Row
    from mobiledeploy.sweep.store import MeasuredArtifact, Result


class _Axis(NamedTuple):
    """A measured value that the chart can show, and the table lists.

    Attributes:
        name: Key in the data of the page.
        title: With its unit.
        better: "low" or "high".
        form: How the table formats it.
    """

    name: str
    title: str
    better: str
    form: str


_FIXED = (
    _Axis("top1", "top-1", "high", ".4f"),
    _Axis("agreement", "agreement with float", "high", ".3f"),
    _Axis("sqnr_db", "SQNR, dB", "high", ".1f"),
    _Axis("size_mb", "size, MB", "low", ".2f"),
    _Axis("macs_m", "MACs, millions", "low", ".0f"),
)


class Card(NamedTuple):
    """A figure of the pick."""

    name: str
    value: str
    detail: str


def require_plotly() -> None:
    """Raise UsageError if plotly is not installed."""
    if find_spec("plotly") is None:
        raise UsageError(
            "--html needs plotly, which is not installed.",
            remedy='Run: pip install "mobiledeploy[html]"',
        )


def to_html(
    results: Sequence[Result], rows: Sequence[Row], best: Sequence[Row], devices: Sequence[str]
) -> str:
    """Return the page.

    Args:
        results: One per point.
        rows: One per artifact.
        best: The rows within the budget, the best first (see `pick.ranked`).
        devices: Where latency was measured.

    Raises:
        UsageError: plotly is not installed.
    """
    require_plotly()
    axes = [
        axis for axis in _axes(devices) if any(_values(row, devices)[axis.name] for row in rows)
    ]
    data = {
        "axes": [axis._asdict() for axis in axes],
        "rows": [_data(row, devices, is_pick=row in best[:1]) for row in rows],
    }
    scripts = [_plotly(), _own_script()]
    return render(
        "sweep/page.html.jinja",
        headline=f"Pick: {best[0].name}" if best else no_pick(rows),
        why=reason(best),
        cards=list(_cards(best[0].artifact)) if best else [],
        second=best[1] if len(best) > 1 else None,
        axes=axes,
        rows=[(row, _cells(row, axes, devices)) for row in rows],
        pick=best[0] if best else None,
        families=_distinct(row.point.model for row in rows),
        formats=_distinct(row.format for row in rows),
        devices=[(_measure(device, rows), i, device) for i, device in enumerate(devices)],
        unfinished=[each for each in results if each.state != "done"],
        data=_script_data(data),
        scripts=[Markup(script) for script in scripts],  # noqa: S704 - plotly's, and ours
        policy=" ".join(f"'sha256-{_digest(script)}'" for script in scripts),
    )


def _axes(devices: Sequence[str]) -> Iterator[_Axis]:
    yield from _FIXED
    for number, device in enumerate(devices):
        yield _Axis(f"latency_{number}", f"latency on {device}, ms", "low", ".2f")
        yield _Axis(f"instructions_{number}", f"instructions on {device}, millions", "low", ".2f")


def _values(row: Row, devices: Sequence[str]) -> dict[str, float | None]:
    artifact = row.artifact
    by_device: dict[str, float | None] = {}
    for number, device in enumerate(devices):
        counted = artifact.instructions.get(device)
        by_device[f"latency_{number}"] = artifact.latency_ms.get(device)
        by_device[f"instructions_{number}"] = None if counted is None else counted / 1e6
    return {
        "top1": artifact.top1,
        "agreement": artifact.agreement,
        "sqnr_db": artifact.sqnr_db,
        "size_mb": artifact.size_bytes / 1e6,
        "macs_m": None if artifact.macs is None else artifact.macs / 1e6,
    } | by_device


def _measure(device: str, rows: Sequence[Row]) -> str:
    """Return what is known of a device: "instructions", or else "latency"."""
    counted = any(device in row.artifact.instructions for row in rows)
    return "instructions" if counted else "latency"


def _data(row: Row, devices: Sequence[str], *, is_pick: bool) -> dict[str, object]:
    """Return what the script knows about a row."""
    return {
        "name": row.name,
        "family": row.point.model,
        "format": row.format,
        "missed": row.missed,
        "pick": is_pick,
        "values": _values(row, devices),
    }


def _cells(row: Row, axes: Sequence[_Axis], devices: Sequence[str]) -> list[str]:
    values = _values(row, devices)
    shown = ((values[axis.name], axis.form) for axis in axes)
    return ["" if value is None else format(value, form) for value, form in shown]


def _cards(artifact: MeasuredArtifact) -> Iterator[Card]:
    yield Card("top-1", f"{artifact.top1:.4f}", "on the labelled images")
    for device, latency in artifact.latency_ms.items():
        yield Card("median latency", f"{latency:.2f} ms", device)
    for device, count in artifact.instructions.items():
        yield Card("instructions", f"{count / 1e6:.2f} M", device)
    yield Card("size", f"{artifact.size_bytes / 1e6:.2f} MB", artifact.path.rpartition("/")[2])


def _distinct(names: Iterator[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _script_data(data: dict[str, Any]) -> Markup:
    """Return JSON that nothing inside can end the element of."""
    return Markup(json.dumps(data).replace("<", "\\u003c"))  # noqa: S704 - no "<" is left


def _plotly() -> str:
    from plotly.offline import get_plotlyjs  # noqa: PLC0415 - an optional extra

    script: str = get_plotlyjs()
    return script.replace("</script", "<\\/script")


def _own_script() -> str:
    return resources.files("mobiledeploy.sweep").joinpath("page.js").read_text("utf-8")


def _digest(script: str) -> str:
    """Return the digest by which the page's policy allows a script."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
