"""Does a result that was read back hold what is going to be read of it?

In: a document of `bench --json`, whose kind and schema are known. Out: what is wrong with it.
Somebody has cut, merged or edited it, or another program wrote it: told before anything is
measured, and so that comparisons need not ask again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from mobiledeploy.bench.json_report import INSTRUCTIONS, TIMES

if TYPE_CHECKING:
    from collections.abc import Callable

_SHOWN = 40


class _Form(NamedTuple):
    said: str
    holds: Callable[[Any], bool]


def _is_figure(value: object) -> bool:
    return isinstance(value, int | float) and 0 < value < math.inf


_TEXT = _Form("a text", lambda value: isinstance(value, str))
_COUNT = _Form("a whole number above 0", lambda value: isinstance(value, int) and value > 0)
_FIGURE = _Form("a number above 0", _is_figure)
_FIGURES = _Form(
    "a list of numbers above 0",
    lambda value: isinstance(value, list) and bool(value) and all(map(_is_figure, value)),
)
_RATIO = _Form(
    "an object with a median",
    lambda value: isinstance(value, dict) and _is_figure(value.get("median")),
)
_NAMES = _Form(
    "a list of texts, or null",
    lambda value: (
        value is None or (isinstance(value, list) and all(isinstance(name, str) for name in value))
    ),
)

# what is read of the host and of each measurement, by kind
_HOST = {
    TIMES: {"place": _TEXT, "model": _TEXT, "architecture": _TEXT},
    INSTRUCTIONS: {"architecture": _TEXT, "features": _NAMES},
}
_EITHER = {"artifact": _TEXT, "artifact_sha256": _TEXT, "runtime": _TEXT, "threads": _COUNT}
_MEASUREMENT = {
    TIMES: _EITHER
    | {"times_ms": _FIGURES, "median_ms": _FIGURE, "p90_ms": _FIGURE, "ratio_to_first": _RATIO},
    INSTRUCTIONS: _EITHER | {"instructions": _FIGURES},
}


def validate_result(document: Mapping[str, Any]) -> str:
    """Return the first thing that is wrong with a result; "" where nothing is."""
    kind, measurements = document["kind"], document.get("measurements")
    if not isinstance(measurements, list) or not measurements:
        return "`measurements` is no list with something in it"
    found = _wrong("host", document.get("host"), _HOST[kind])
    for place, entry in enumerate(measurements):
        found = found or _wrong(f"measurements[{place}]", entry, _MEASUREMENT[kind])
    if not found and kind == TIMES:
        rounds = sorted({len(entry["times_ms"]) for entry in measurements})
        if len(rounds) > 1:  # a round has one time of each artifact
            found = f"`times_ms` has {rounds[0]} times in one measurement, {rounds[-1]} in another"
    return found


def _wrong(where: str, fields: object, forms: Mapping[str, _Form]) -> str:
    if not isinstance(fields, Mapping):
        return f"`{where}` is missing, or no object"
    for name, form in forms.items():
        if name not in fields:
            return f"`{where}.{name}` is missing"
        if not form.holds(fields[name]):
            shown = json.dumps(fields[name])[:_SHOWN]
            return f"`{where}.{name}` is {shown}, expected {form.said}"
    return ""
