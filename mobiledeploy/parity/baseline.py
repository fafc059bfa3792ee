"""Compare a parity report with a stored one, and list what got worse.

Compared are only figures that do not depend on the machine: metrics that have a limit, and the loss
of every rung against float. SQNRs above 60 dB are float rounding, which differs between processors.

A rung or a metric that is missing now is a regression. Reports of another network or of other
images, and reports that compare no artifact with anything, are refused.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, cast

from pydantic import ValidationError

from mobiledeploy.errors import DataError
from mobiledeploy.parity.compare import in_words
from mobiledeploy.parity.types import SCHEMA, ParityReport
from mobiledeploy.utils.files import reason_of, require_regular
from mobiledeploy.utils.json_model import explain_invalid
from mobiledeploy.utils.progress import warn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from mobiledeploy.parity.types import DataUsed, Metrics, Rung

# by how much a metric may fall or rise before it counts as a regression
_MAY_FALL = {"sqnr_db": 0.5, "top1_agreement": 0.01, "top5_agreement": 0.01}
_MAY_RISE = {"differing_logits": 0.0, "worst_flip_margin": 0.5}
_ACCURACY_MAY_FALL = 0.005
_ROUNDING_DB = 60.0
_EXACT = "max_differing_logits"

_KIND = "mobiledeploy.parity"
_OLD_SCHEMAS = (2, 3)  # counted biases as signal: their `sqnr_db` is another figure
_SCHEMA_2 = 2  # used these names
_RENAMED = {
    "first_bad_layer": "first_noisy_layer",
    "first_layer": "first_differing_layer",
    "float_top": "float_top5",
    "gained_db": "sqnr_drop_db",
    "onnx-as-written": "onnx-unoptimized",
    "top": "top5",
    "truth": "label",
}
_REMEDY = "Write a new one with `mobiledeploy parity --json PATH`."


def read_baseline(path: Path) -> ParityReport:
    """Read a report that `mobiledeploy parity --json` wrote, also with schema 2 or 3.

    Their SQNR counts what does not depend on the image. It is left out, with a warning.

    Raises:
        DataError: the file cannot be read, or holds something else.
    """
    require_regular(path, DataError)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"Could not read the baseline {path}: {reason_of(error)}.", remedy=_REMEDY
        ) from error
    found = document if isinstance(document, dict) else {}
    if found.get("kind") != _KIND:
        raise _other("kind", found.get("kind"), _KIND)
    if found.get("schema") in _OLD_SCHEMAS:
        found = _renamed(found) if found["schema"] == _SCHEMA_2 else found
        found = _without_sqnr(found) | {"schema": SCHEMA}
        warn(
            f"The baseline {path} is of an older version, whose SQNR counted biases as signal: SQNR"
            " is not compared with it. Write a new baseline with `mobiledeploy parity --json PATH`."
        )
    if found.get("schema") != SCHEMA:
        raise _other("schema", found.get("schema"), SCHEMA)
    try:
        return ParityReport.model_validate_json(json.dumps(found))
    except ValidationError as error:
        raise _damaged(explain_invalid(error)) from error


def require_comparable(baseline: ParityReport, *, network: str, precision: str) -> None:
    """Raise unless a baseline is of this network and precision, and compares an artifact.

    Raises:
        DataError: it is of another network or precision, or compares nothing.
    """
    if baseline.network != network:
        raise _other("network", baseline.network, network)
    if baseline.precision != precision:
        raise _other("precision", baseline.precision, precision)
    if not any(rung.artifact and rung.comparisons for rung in baseline.rungs):
        raise _damaged("it compares no artifact with anything")


def regressions(baseline: ParityReport, report: ParityReport) -> tuple[str, ...]:
    """Return what got worse since `baseline`, one sentence each; empty if nothing did.

    Raises:
        DataError: the baseline is of other images.
    """
    _require_same_images(baseline.data, report.data)
    return tuple(_all_regressions(baseline.rungs, report.rungs))


def _all_regressions(before: Sequence[Rung], now: Sequence[Rung]) -> Iterator[str]:
    count = Counter(rung.name for rung in before)
    for old, new in _paired(before, now):
        of_several = f" ({_file_name(old)})" if count[old.name] > 1 else ""
        title = old.name + of_several
        if new is None:
            yield f"{title}: the baseline has this rung, the report does not."
        else:
            yield from (f"{title}: {text}" for text in _worse(old, new))


def _paired(before: Sequence[Rung], now: Sequence[Rung]) -> Iterator[tuple[Rung, Rung | None]]:
    """Yield every rung of the baseline with that of the report; None if it has none.

    Artifacts may have been moved or renamed. Rungs of one name are paired by file name first; the
    others by suffix, in their order.
    """
    left = list(now)
    partners: dict[int, Rung] = {}
    for key in (_file_name, _suffix):
        for number, rung in enumerate(before):
            wanted = (rung.name, key(rung))
            found = next((r for r in left if (r.name, key(r)) == wanted), None)
            if number not in partners and found is not None:
                left.remove(found)
                partners[number] = found
    for number, rung in enumerate(before):
        yield rung, partners.get(number)


def _require_same_images(before: DataUsed, now: DataUsed) -> None:
    if (before.sha256, before.count) != (now.sha256, now.count):
        raise DataError(
            f"The baseline was made with other images ({before.count} of {before.source});"
            f" these are {now.count} of {now.source}.",
            remedy="Use the same --data and --samples, or write a new baseline.",
        )


def _worse(before: Rung, now: Rung) -> Iterator[str]:
    if before.passed and not now.passed:
        yield "it passed before."
    if before.accuracy is not None:
        yield from _moved("accuracy", before.accuracy, now.accuracy, -_ACCURACY_MAY_FALL)
    current = {(c.reference, c.images): c.metrics for c in now.comparisons}
    for comparison in before.comparisons:
        if comparison.reference != "float" and not comparison.limits:
            continue
        found = _values(current.get((comparison.reference, comparison.images), {}))
        against = f" against {comparison.reference}"
        allowed = {name: -fall for name, fall in _MAY_FALL.items()} | _MAY_RISE
        if _EXACT not in comparison.limits:
            del allowed["differing_logits"]
        for name, old in _values(comparison.metrics).items():
            if name in allowed:
                yield from _moved(name, old, found.get(name), allowed[name], against)


def _moved(
    name: str, old: float, new: float | None, allowed: float, against: str = ""
) -> Iterator[str]:
    """Yield a sentence if a metric moved the wrong way by more than allowed.

    Args:
        name: Name of the metric.
        old: In the baseline.
        new: In the report; None if it is missing, which counts as a regression.
        allowed: How far it may rise; negative for how far it may fall.
        against: What the metric is against, for the sentence.
    """
    new = float("nan") if new is None else new
    if name == "sqnr_db":
        old, new = min(old, _ROUNDING_DB), min(new, _ROUNDING_DB)
    change = old - new if allowed < 0 else new - old
    if old == new or change <= abs(allowed) + 1e-9:
        return
    title, unit = in_words(name)
    yield f"{title}{against} went from {old:.4g}{unit} to {new:.4g}{unit}."


def _values(metrics: Metrics) -> Mapping[str, float]:
    return cast("Mapping[str, float]", metrics)


def _renamed(value: Any) -> Any:
    """Return a part of a schema 2 document with the names of today."""
    if isinstance(value, dict):
        return {_RENAMED.get(key, key): _renamed(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_renamed(inner) for inner in value]
    return _RENAMED["onnx-as-written"] if value == "onnx-as-written" else value


def _without_sqnr(value: Any) -> Any:
    """Return a part of a document without the SQNR of logits; that of layers stays."""
    if isinstance(value, dict):
        return {
            key: {k: v for k, v in inner.items() if k != "sqnr_db"}
            if key == "metrics"
            else _without_sqnr(inner)
            for key, inner in value.items()
        }
    return [_without_sqnr(inner) for inner in value] if isinstance(value, list) else value


def _other(key: str, found: object, expected: object) -> DataError:
    return DataError(
        f"The baseline has {key} {found!r}, expected {expected!r}: it is not a parity report that"
        " this one can be compared with.",
        remedy="Pass a report that `mobiledeploy parity --json PATH` wrote for this network.",
    )


def _damaged(problem: str) -> DataError:
    return DataError(f"The baseline is damaged: {problem}.", remedy=_REMEDY)


def _file_name(rung: Rung) -> str:
    return PurePath(rung.artifact).name


def _suffix(rung: Rung) -> str:
    return rung.artifact.rpartition(".")[2]
