"""A parity report as one HTML file that needs nothing else: no script, no font, no request.

In: a `ParityReport` and the manifest's document. Out: the page. Verdict first; then the ladder, the
images to look at, the layers, the encodings, and what all of it was made from.

Invariant: whatever comes from users (names, paths, labels) is escaped.
"""

from __future__ import annotations

import base64
from html import escape
from importlib import resources
from typing import TYPE_CHECKING, Any

from mobiledeploy.network import describe_images
from mobiledeploy.parity.report.plot import layer_plot
from mobiledeploy.parity.report.rows import headline, images_used, loss, notes, rows, title
from mobiledeploy.parity.report.table import figures_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mobiledeploy.parity.types import LayerNoise, ParityReport, Prediction, WorstImage

_LAYERS = 12
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def to_html(report: ParityReport, manifest: Mapping[str, Any]) -> str:
    """Return the page.

    Args:
        report: With layers and worst images where they were asked for.
        manifest: Of the first artifact: encodings and provenance.
    """
    style = resources.files("mobiledeploy.parity.report").joinpath("style.css").read_text("utf-8")
    name = escape(report.network)
    return "\n".join(
        (
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            f"<title>{escape(headline(report))}: {name}</title>",
            f"<style>{style}</style></head><body>",
            _verdict(report),
            _ladder(report),
            figures_table(report),
            _images(report.worst_images),
            _layers(report.layers, report.first_noisy_layer),
            _encodings(manifest.get("encodings", {})),
            _provenance(report, manifest),
            "</body></html>\n",
        )
    )


def _verdict(report: ParityReport) -> str:
    failures = [
        f"<li><b>{escape(title(rung, report))}</b>: {escape(text)}</li>"
        for rung in report.rungs
        for text in rung.failures
    ]
    failures += [f"<li><b>baseline</b>: {escape(text)}</li>" for text in report.regressions or ()]
    listed = f'<ul class="failures">{"".join(failures)}</ul>' if failures else ""
    listed_notes = "".join(f"<p>{escape(note)}</p>" for note in notes(report))
    return (
        f'<header class="verdict{"" if report.passed else " bad"}"><h1>{escape(headline(report))}'
        f"</h1><p>{escape(report.network)}, {report.precision},"
        f" on {escape(images_used(report))}</p>"
        f"{listed}<p>{escape(loss(report))}</p>{listed_notes}</header>"
    )


def _ladder(report: ParityReport) -> str:
    labels = ("rung", "held against", "figures", "against float", "top-1", "verdict")
    body = []
    for row in rows(report):
        cells = (row.rung, row.against, row.metrics, row.versus_float, row.accuracy, row.verdict)
        body.append(
            "<tr>"
            + "".join(
                f'<td data-label="{label}"{_class(cell)}>{escape(cell)}</td>'
                for label, cell in zip(labels, cells, strict=True)
            )
            + "</tr>"
        )
    return (
        "<h2>The ladder</h2><p>From float to the device, each rung held against the one that it"
        " must equal or follow: by SQNR and agreement of the first class, or by how many logits"
        " differ.</p>"
        f'<table class="ladder"><thead>{_heading(labels)}</thead><tbody>{"".join(body)}</tbody>'
        "</table>"
    )


def _class(cell: str) -> str:
    return f' class="{cell}"' if cell in ("passed", "FAILED") else ""


def _images(images: Sequence[WorstImage]) -> str:
    if not images:
        return ""
    figures = "".join(_figure(image) for image in images)
    return (
        "<h2>Images to look at</h2><p>Where the last rung is farthest from float: changed classes"
        " first, by how sure float was. A change at a margin of 0.01 is a coin toss, one at 5 a"
        f' bug.</p><div class="images">{figures}</div>'
    )


def _figure(image: WorstImage) -> str:
    picture = base64.b64encode(image.thumbnail).decode()
    name = escape(image.name).replace("_", "_<wbr>")  # names of files break at underscores
    truth = f"<br>labelled {escape(image.label)}" if image.label else ""
    changed = f"margin {image.margin:.2f}" if image.margin else "same class"
    figures = f"{changed}, KL&nbsp;{image.kl_divergence:.3f}"
    return (
        f'<figure><div class="head"><img alt="" src="data:image/webp;base64,{picture}"><div>'
        f"<b>{name}</b>{truth}<br>{figures}</div></div>"
        f'<div class="guesses"><div><span>float</span>{_guesses(image.float_top5)}</div>'
        f"<div><span>last rung</span>{_guesses(image.top5)}</div></div></figure>"
    )


def _guesses(guesses: Iterable[Prediction]) -> str:
    items = (f"<li>{escape(g.label)}&nbsp;<i>{g.probability:.0%}</i></li>" for g in guesses)
    return f"<ol>{''.join(items)}</ol>"


def _layers(layers: Sequence[LayerNoise], bad: str) -> str:
    if not layers:
        return ""
    worst = sorted(layers, key=lambda layer: -layer.sqnr_drop_db)[:_LAYERS]
    told = f" <b>The first that loses too much by itself is {escape(bad)}.</b>" if bad else ""
    body = "".join(
        f'<tr><td>{escape(layer.name)}</td><td class="number">{layer.sqnr_drop_db:.1f}</td>'
        f'<td class="number">{layer.sqnr_db:.1f}</td>'
        f'<td class="number">{layer.own_sqnr_db:.1f}</td></tr>'
        for layer in worst
    )
    heading = (
        '<tr><th>layer</th><th class="number">lost, dB</th><th class="number">SQNR, dB</th>'
        '<th class="number">its own</th></tr>'
    )
    return (
        "<h2>Layer by layer</h2><p>Line: SQNR against float behind each layer, in dB. Bars: what it"
        f" would be if the layer were the only one that rounds.{told}</p>"
        f"{layer_plot(layers)}"
        f"<p>The {len(worst)} layers that lose most:</p>"
        f'<div class="wide"><table><thead>{heading}</thead><tbody>{body}</tbody></table></div>'
    )


def _encodings(encodings: Mapping[str, Mapping[str, Any]]) -> str:
    if not encodings:
        return ""
    body = []
    for name, encoding in encodings.items():
        scale, zero_point = float(encoding["scale"]), int(encoding["zero_point"])
        low, high = (-128 - zero_point) * scale, (127 - zero_point) * scale
        body.append(
            f'<tr><td>{escape(name)}</td><td class="number">{low:.4g}</td>'
            f'<td class="number">{high:.4g}</td><td class="number">{scale:.6g}</td>'
            f'<td class="number">{zero_point}</td></tr>'
        )
    heading = (
        '<tr><th>activation</th><th class="number">from</th><th class="number">to</th>'
        '<th class="number">scale</th><th class="number">zero-point</th></tr>'
    )
    return (
        f"<h2>Encodings</h2><details><summary>{len(encodings)} activations</summary>"
        f'<div class="wide"><table><thead>{heading}</thead><tbody>{"".join(body)}</tbody></table>'
        "</div></details>"
    )


def _provenance(report: ParityReport, manifest: Mapping[str, Any]) -> str:
    weights, calibration = manifest.get("weights", {}), manifest.get("calibration", {})
    recipe, tools = (
        ", ".join(f"{key} {value}" for key, value in (manifest.get(name) or {}).items())
        for name in ("recipe", "tool_versions")
    )
    facts: list[tuple[str, object, str | None]] = [
        ("weights", f"{weights.get('source')}, {weights.get('origin')}", weights.get("sha256")),
        (
            "calibration",
            calibration and describe_images(calibration["count"], calibration["source"]),
            calibration.get("sha256"),
        ),
        ("recipe", recipe, None),
        ("compared on", images_used(report), report.data.sha256),
        ("tools", tools, None),
        *(
            (a.file, f"{a.size_bytes:,} bytes, run by {a.runtime}", a.sha256)
            for a in report.artifacts
        ),
    ]
    listed = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(str(value))}{_digest(sha256)}</dd>"
        for name, value, sha256 in facts
        if value
    )
    return f"<h2>What it was made from</h2><dl>{listed}</dl>"


def _digest(sha256: str | None) -> str:
    return f"<br><code>sha256 {escape(sha256)}</code>" if sha256 else ""


def _heading(labels: Iterable[str]) -> str:
    return f"<tr>{''.join(f'<th>{label}</th>' for label in labels)}</tr>"
