"""V1's table as pairs of layers, the form that training repositories have.

model_architecture:
  - [32, 3, 2]                        # the first convolution, if stated: filters, kernel, stride
  - [[32, 3, 1], [64, 1, 1]]          # depthwise, then pointwise
  - [5, [512, 3, 1], [512, 1, 1]]     # a repeat count in front

Input: this list. Output: the rows of `ModelSpec`, and what differs in its first convolution.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from mobiledeploy.errors import UsageError
from mobiledeploy.models.mobilenet_v1 import STEM
from mobiledeploy.models.validate import MAX_LAYERS
from mobiledeploy.utils.visible_text import short_repr

KEY = "model_architecture"
_STEM_STRIDE = 2


class _Layer(NamedTuple):
    """One convolution of the table."""

    filters: int
    kernel: int
    stride: int


def with_rows(document: dict[str, Any]) -> dict[str, Any]:
    """Replace a table of layer pairs by the architecture options of V1; V1 is then the family.

    Raises:
        UsageError: the table is no list of pairs, describes what V1 does not have, or stands
            beside other rows or a family other than V1.
    """
    if KEY not in document:
        return document
    fields = {"family": "v1", **document}
    options = fields.get("architecture") or {}
    if not isinstance(options, dict):
        return fields  # `ModelSpec` raises the error
    if fields["family"] != "v1":
        raise UsageError(f"{KEY} describes a v1; family is {short_repr(fields['family'])}.")
    found = _options_of(fields.pop(KEY))
    twice = sorted(set(found) & set(options))
    if twice:
        raise UsageError(f"{KEY} and architecture.{twice[0]} describe the same; expected one.")
    fields["architecture"] = {**options, **found}
    return fields


def _options_of(table: object) -> dict[str, object]:
    """Return the architecture options of a table."""
    if not isinstance(table, list) or not table:
        raise UsageError(f"{KEY} is {short_repr(table)}; expected a list of pairs of layers.")
    stem = _layer(table[0])
    rows: list[list[int]] = []
    channels = None
    if stem is not None:
        _require(1, "the kernel of the first convolution", stem.kernel, 3)
        channels = stem.filters
    for number, entry in enumerate(table, start=1):
        if number == 1 and stem is not None:
            continue
        count, depthwise, pointwise = _pair(number, entry)
        first = depthwise.filters if channels is None else channels
        for before in (first, *[pointwise.filters] * (count - 1)):
            _require(number, "the number of depthwise filters", depthwise.filters, before)
            rows.append([pointwise.filters, depthwise.stride])
        if stem is None:
            stem = _Layer(first, 3, _STEM_STRIDE)
        channels = pointwise.filters
    options: dict[str, object] = {"rows": rows}
    if stem is not None and stem.filters != STEM:
        options["stem_width"] = stem.filters
    if stem is not None and stem.stride != _STEM_STRIDE:
        options["stem_stride"] = stem.stride
    return options


def _pair(number: int, entry: object) -> tuple[int, _Layer, _Layer]:
    """Return how often a pair is repeated, its depthwise and its pointwise layer."""
    parts = entry if isinstance(entry, list) else []
    count, layers = (parts[0], parts[1:]) if len(parts) == 3 else (1, parts)
    found = [layer for layer in map(_layer, layers) if layer is not None]
    if len(found) != 2 or not _is_count(count) or count > MAX_LAYERS:
        raise UsageError(
            f"{KEY}, entry {number} is {short_repr(entry)}; expected [[filters, kernel, stride],"
            " [filters, kernel, stride]], with a repeat count in front or without."
        )
    depthwise, pointwise = found
    _require(number, "the depthwise kernel", depthwise.kernel, 3)
    _require(number, "the pointwise kernel", pointwise.kernel, 1)
    _require(number, "the pointwise stride", pointwise.stride, 1)
    return count, depthwise, pointwise


def _layer(value: object) -> _Layer | None:
    """Return a layer of [filters, kernel, stride]; None for anything else."""
    if isinstance(value, list) and len(value) == 3 and all(map(_is_count, value)):
        return _Layer(*value)
    return None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _require(number: int, what: str, found: int, expected: int) -> None:
    if found != expected:
        raise UsageError(
            f"{KEY}, entry {number}: {what} is {found}; expected {expected}, as V1 has."
        )
