"""Parity reports as JSON. `parity.schema.json` is the schema, generated from `parity.types`.

An infinite SQNR (equal logits) is written as null; see `utils.json_numbers`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mobiledeploy.parity.types import ParityReport

_FIRST = ("schema", "kind", "passed", "first_failure")
_IN_SUMMARY = {
    *("schema_version", "passed", "first_failure", "network", "precision", "task", "data"),
    *("artifacts", "rungs"),
}


def to_document(report: ParityReport) -> dict[str, Any]:
    """Return the whole report, except for the thumbnails."""
    return _ordered(report.model_dump(mode="json"))


def summary(report: ParityReport) -> dict[str, Any]:
    """Return what the same artifacts give again on the same images: no times, no pictures."""
    return _ordered(
        report.model_dump(
            mode="json", include=_IN_SUMMARY, exclude={"rungs": {"__all__": {"seconds"}}}
        )
    )


def _ordered(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document with the verdict at the top."""
    return {key: document[key] for key in _FIRST if key in document} | document
