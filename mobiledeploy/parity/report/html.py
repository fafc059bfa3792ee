"""A parity report as one self-contained HTML page.

The verdict comes first; then the ladder, the worst images, the layers, the encodings and the
provenance. `parity.html.jinja` is the template.
"""

from __future__ import annotations

import base64
from dataclasses import asdict
from typing import TYPE_CHECKING, NamedTuple, cast

from mobiledeploy.parity.report.layer_chart import layer_chart, worst_layers
from mobiledeploy.parity.report.rows import (
    decibels,
    headline,
    images_used,
    loss,
    notes,
    rows,
    title,
)
from mobiledeploy.stages import describe_images
from mobiledeploy.utils.html.page import render

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from mobiledeploy.artifact.manifest_schema import ManifestDocument
    from mobiledeploy.parity.types import ComparedArtifact, Metrics, ParityReport, Rung

    Values = Mapping[str, float]

_LAYERS = 12


class Fact(NamedTuple):
    """A figure of the banner, with what it is and what else belongs to it."""

    name: str
    value: str
    detail: str


def to_html(report: ParityReport, manifest: ManifestDocument | None) -> str:
    """Return the page.

    Args:
        report: With layers and worst images, if they are to be shown.
        manifest: The manifest of the first artifact, for encodings and provenance; None omits them.
    """
    return render(
        "parity/report/parity.html.jinja",
        report=report,
        headline=headline(report),
        images=images_used(report),
        failures=[(title(rung, report), text) for rung in report.rungs for text in rung.failures],
        facts=list(_facts(report)),
        loss=loss(report),
        notes=notes(report),
        rows=rows(report),
        metric_names=list(_METRICS),
        comparisons=list(_comparisons(report)),
        picture=lambda image: base64.b64encode(image.thumbnail).decode(),
        layer_chart=layer_chart(report.layers) if report.layers else "",
        worst_layers=worst_layers(report.layers, _LAYERS),
        encodings=[] if manifest is None else list(_encodings(manifest)),
        provenance=list(_provenance(report, manifest)),
    )


def _facts(report: ParityReport) -> Iterator[Fact]:
    """Yield what the network was before and what it is now."""
    first = report.rungs[0]
    last = next((rung for rung in reversed(report.rungs) if rung.against("float")), None)
    sizes = [artifact.size_bytes for artifact in report.artifacts]
    if sizes and report.float_bytes:
        yield Fact(
            "size",
            f"{report.float_bytes / 1e6:.2f} → {min(sizes) / 1e6:.2f} MB",
            "float32 weights → "
            + ", ".join(f"{a.size_bytes / 1e6:.2f} MB {_suffix(a)}" for a in report.artifacts),
        )
    if last is None:
        return
    if first.accuracy is not None and last.accuracy is not None:
        change = 100 * (last.accuracy - first.accuracy)
        yield Fact(
            "top-1 accuracy",
            f"{first.accuracy:.1%} → {last.accuracy:.1%}",
            f"{change:+.1f} percentage points, float → {last.title}",
        )
    yield from _closeness(last)


def _closeness(last: Rung) -> Iterator[Fact]:
    """Yield how close the last rung is to float and to what it must equal."""
    versus_float = last.against("float")
    if versus_float is not None and versus_float.metrics:
        found = versus_float.metrics
        sqnr = decibels(found["sqnr_db"]) if "sqnr_db" in found else "undefined"
        if "top1_agreement" in found:
            low, high = found["top1_agreement_low"], found["top1_agreement_high"]
            yield Fact(
                "top-1 agreement with float",
                f"{found['top1_agreement']:.1%}",
                f"95% interval {low:.1%} to {high:.1%}; SQNR {sqnr}",
            )
        else:
            error = f"mean error {found['mean_abs_difference']:.3g}, in the units of the outputs"
            yield Fact("SQNR against float", sqnr, error)
    integers = last.against("integers")
    if integers is not None and integers.metrics:
        found = integers.metrics
        yield Fact(
            "differing logits",
            f"{found['differing_logits']:.0f}",
            f"of {found['logits']:.0f}, against the integer reference",
        )


def _suffix(artifact: ComparedArtifact) -> str:
    return f".{artifact.file.rpartition('.')[2]}"


def _share(name: str) -> Callable[[Values], str]:
    """Return a function that shows a share with its interval."""
    return lambda found: (
        f"{found[name]:.3f} ({found[f'{name}_low']:.3f} to {found[f'{name}_high']:.3f})"
        if name in found
        else ""
    )


def _number(name: str, form: str) -> Callable[[Values], str]:
    return lambda found: format(found[name], form) if name in found else ""


_METRICS: Mapping[str, Callable[[Values], str]] = {
    "SQNR": lambda found: decibels(found["sqnr_db"]) if "sqnr_db" in found else "",
    "top-1 agreement (95%)": _share("top1_agreement"),
    "top-5 agreement (95%)": _share("top5_agreement"),
    "changed classes": _number("flips", ".0f"),
    "largest margin": _number("worst_flip_margin", ".2f"),
    "mean regret": _number("margin_weighted_flips", ".4f"),
    "KL, nats": _number("kl_divergence", ".4f"),
    "cosine": _number("cosine_similarity", ".5f"),
    "mean cosine": _number("mean_cosine_similarity", ".5f"),
    "lowest SQNR of an output": lambda found: (
        decibels(found["lowest_output_sqnr_db"]) if "lowest_output_sqnr_db" in found else ""
    ),
    "constant outputs": _number("constant_outputs", ".0f"),
    "largest difference": _number("max_abs_difference", ".3g"),
    "in steps": _number("max_steps_apart", ".1f"),
    "mean difference": _number("mean_abs_difference", ".3g"),
    "mean, in steps": _number("mean_steps_apart", ".2f"),
}


def _comparisons(report: ParityReport) -> Iterator[tuple[str, str, list[str]]]:
    """Yield each comparison: its rung, the reference, and all metrics as text."""
    for rung in report.rungs:
        for comparison in rung.comparisons:
            if comparison.metrics:
                on = ", calibration images" if comparison.images == "calibration" else ""
                yield title(rung, report), comparison.reference + on, _cells(comparison.metrics)


def _cells(metrics: Metrics) -> list[str]:
    return [show(cast("Values", metrics)) for show in _METRICS.values()]


def _encodings(manifest: ManifestDocument) -> Iterator[tuple[str, list[str]]]:
    """Yield each activation with its range, scale and zero-point."""
    for name, record in manifest.encodings.items():
        encoding = record.encoding
        numbers = [f"{encoding.low:.4g}", f"{encoding.high:.4g}", f"{encoding.scale:.6g}"]
        yield name, [*numbers, str(encoding.zero_point)]


def _provenance(
    report: ParityReport, manifest: ManifestDocument | None
) -> Iterator[tuple[str, str, str | None]]:
    """Yield what the artifacts were made from: a name, a description, and a sha256 or None."""
    if manifest is not None:
        weights, calibration = manifest.weights, manifest.calibration
        yield "weights", f"{weights.source}, {weights.origin}", weights.sha256
        if calibration is not None:
            images = describe_images(calibration.count, calibration.source)
            yield "calibration", images, calibration.sha256
        if manifest.recipe is not None:
            fields = asdict(manifest.recipe)
            fields["float_layers"] = " ".join(manifest.recipe.float_layers)
            used = (f"{name} {value}" for name, value in fields.items() if value)
            yield "recipe", ", ".join(used), None
        tools = (f"{name} {version}" for name, version in manifest.tool_versions.items())
        yield "tools", ", ".join(tools), None
    yield "compared on", images_used(report), report.data.sha256
    for artifact in report.artifacts:
        description = f"{artifact.size_bytes:,} bytes, run by {artifact.runtime}"
        yield artifact.file, description, artifact.sha256
