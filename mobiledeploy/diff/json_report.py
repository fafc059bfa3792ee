"""A `Difference` or a `Reproduction` as JSON, versioned by `schema`.

The SQNR of logits that are equal is null.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mobiledeploy.diff.text import headline
from mobiledeploy.utils.json_numbers import encode_floats

if TYPE_CHECKING:
    from mobiledeploy.diff.types import Difference, Reproduction

SCHEMA = 1


def difference_document(difference: Difference) -> dict[str, Any]:
    """Return all of it, with what was derived beside what was found."""
    return {"schema": SCHEMA, "kind": "mobiledeploy.diff", **_difference(difference)}


def reproduction_document(reproduction: Reproduction) -> dict[str, Any]:
    """Return all of it; `difference` is that between the artifact (A) and the rebuilt one (B)."""
    difference = reproduction.difference
    return {
        "schema": SCHEMA,
        "kind": "mobiledeploy.reproduce",
        "same": reproduction.same,
        "manifest": reproduction.manifest,
        "expected_sha256": reproduction.expected_sha256,
        "found_sha256": reproduction.found_sha256 or None,
        "reasons": list(reproduction.reasons),
        "difference": None if difference is None else _difference(difference),
    }


def _difference(difference: Difference) -> dict[str, Any]:
    document: dict[str, Any] = {
        "same": difference.same,
        "headline": list(headline(difference)),
        **asdict(difference),
    }
    if difference.encodings is not None:
        document["encodings"]["moved"] = [
            asdict(pair) | {"scale_ratio": pair.scale_ratio, "distance": pair.distance}
            for pair in difference.encodings.moved
        ]
    written: dict[str, Any] = encode_floats(document)
    return written
