"""Is every field of a manifest what it has to be? Manifests are edited by hand, too.

Input: a manifest as parsed. Output: nothing, or a TypeError that names the first field that is
wrong. Only what is there is looked at: what has to be there is for `manifest` to say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

# Paths of fields; "[]" is every item of a list, "{}" every value of a mapping.
_FIELDS = {
    "text": """
        artifact.file artifact.format artifact.sha256
        spec.family spec.weights precision
        weights.source weights.origin weights.dialect weights.from_manifest
        preprocessing.interpolation labels.[] tool_versions.{}
        recipe.factors recipe.equalization recipe.range_rule recipe.rounding recipe.weight_scheme
        recipe.activation_scheme recipe.float_layers.[]
        calibration.source calibration.from_manifest calibration.sha256
        encodings_sha256 encodings.{}.layer
    """,
    "text or null": "weights.sha256",
    "a whole number": """
        artifact.size_bytes spec.num_classes spec.seed encodings.{}.zero_point
    """,
    "a whole number above 0": "spec.resolution spec.in_channels calibration.count",
    "a number": "spec.dropout preprocessing.mean.[] int8_coverage.macs_share",
    "a number above 0": """
        spec.width preprocessing.std.[] preprocessing.crop_pct encodings.{}.scale
    """,
}


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


_CHECKS: dict[str, Callable[[object], bool]] = {
    "text": lambda value: isinstance(value, str),
    "text or null": lambda value: value is None or isinstance(value, str),
    "a whole number": _is_whole,
    "a whole number above 0": lambda v: isinstance(v, int) and _is_whole(v) and v > 0,
    "a number": _is_number,
    "a number above 0": lambda v: isinstance(v, int | float) and _is_number(v) and v > 0,
}


def check_fields(document: object) -> None:
    """Raise TypeError for the first field that is there and is not what it has to be."""
    for expected, paths in _FIELDS.items():
        for path in paths.split():
            for where, value in _values(document, path.split("."), ""):
                if not _CHECKS[expected](value):
                    raise TypeError(f"{where} is {value!r}, expected {expected}")


def _values(node: object, path: list[str], where: str) -> Iterator[tuple[str, object]]:
    """Yield what is found along a path below `node`, with its full name; nothing if it ends."""
    if not path:
        yield where, node
        return
    step, rest = path[0], path[1:]
    if not isinstance(node, list if step == "[]" else dict):
        raise TypeError(f"{where} is {node!r}, expected a {'list' if step == '[]' else 'mapping'}")
    items = enumerate(node) if isinstance(node, list) else node.items()
    for name, value in items:
        if step in ("[]", "{}", name):
            yield from _values(value, rest, f"{where}.{name}".lstrip("."))
