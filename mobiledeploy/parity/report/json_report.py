"""A parity report as JSON, versioned by `schema`; `parity.schema.json` says what it holds.

In: a `ParityReport`. Out: what `json.dumps` takes. The SQNR of logits that are equal is null.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mobiledeploy.utils.json_numbers import encode_floats

if TYPE_CHECKING:
    from mobiledeploy.parity.types import Comparison, ParityReport, Rung

SCHEMA = 2
KIND = "mobiledeploy.parity"


def to_document(report: ParityReport) -> dict[str, Any]:
    """Return the whole report, but for the thumbnails."""
    return {
        "schema": SCHEMA,
        "kind": KIND,
        **summary(report),
        "device": report.device,
        "regressions": None if report.regressions is None else list(report.regressions),
        "rungs": [_rung(rung) | {"seconds": round(rung.seconds, 3)} for rung in report.rungs],
        "layers": [encode_floats(asdict(layer)) for layer in report.layers],
        "first_bad_layer": report.first_bad_layer,
        "worst_images": [
            {key: value for key, value in asdict(image).items() if key != "thumbnail"}
            for image in report.worst_images
        ],
    }


def summary(report: ParityReport) -> dict[str, Any]:
    """Return what the same artifacts and images give again: no times, no pictures."""
    failed = report.first_failure
    return {
        "passed": report.passed,
        "first_failure": None if failed is None else failed.name,
        "network": report.network,
        "precision": report.precision,
        "data": asdict(report.data),
        "artifacts": [asdict(artifact) for artifact in report.artifacts],
        "rungs": [_rung(rung) for rung in report.rungs],
    }


def _rung(rung: Rung) -> dict[str, Any]:
    return {
        "name": rung.name,
        "title": rung.title,
        "artifact": rung.artifact,
        "passed": rung.passed,
        "accuracy": rung.accuracy,
        "note": rung.note,
        "first_layer": rung.first_layer,
        "failures": list(rung.all_failures),
        "comparisons": [_comparison(comparison) for comparison in rung.comparisons],
    }


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        "reference": comparison.reference,
        "images": comparison.images,
        "metrics": encode_floats(comparison.metrics),
        "limits": dict(comparison.limits),
        "passed": not comparison.failures,
    }
