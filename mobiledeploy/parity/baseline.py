"""Is a report worse than one that was stored before?

In: both as documents (see `report.document`). Out: what got worse, one sentence each.

Compared is what does not depend on the machine: what a limit is demanded of, and the loss against
float of every rung. SQNRs above 60 dB are float rounding, which another processor does otherwise.

Invariant: reports that cannot be compared are refused, and those that compare no artifact with
anything; a rung or a figure that is missing now is a regression.
"""

from __future__ import annotations

from collections import Counter
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from mobiledeploy.errors import DataError
from mobiledeploy.utils.json_numbers import decode_float

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Document = Mapping[str, Any]

# Which figures may fall or rise by how much before it counts.
_MAY_FALL = {"sqnr_db": 0.5, "top1_agreement": 0.01, "top5_agreement": 0.01}
_MAY_RISE = {"differing_logits": 0.0, "worst_flip_margin": 0.5}
_ACCURACY_MAY_FALL = 0.005
_ROUNDING_DB = 60.0
_EXACT = "max_differing_logits"


def require_comparable(baseline: object, expected: Document) -> None:
    """Raise unless a baseline is a report of the network that is going to be compared.

    Args:
        baseline: As it was read.
        expected: Fields that both must have, with the value that they must have.

    Raises:
        DataError: naming the first field that differs.
    """
    found = baseline if isinstance(baseline, dict) else {}
    for key, value in expected.items():
        if found.get(key) != value:
            raise DataError(
                f"The baseline has {key} {found.get(key)!r}, expected {value!r}: it is not a report"
                " that this one can be compared with.",
                remedy="Give what `mobiledeploy parity --json PATH` wrote for this network.",
            )


def regressions(baseline: Document, report: Document) -> tuple[str, ...]:
    """Return what got worse since `baseline`; empty where nothing did.

    Raises:
        DataError: the baseline is damaged, or of other images.
    """
    try:
        _require_same_images(baseline["data"], report["data"])
        _require_comparisons(baseline["rungs"])
        return tuple(_all_regressions(baseline, report))
    except (KeyError, TypeError, AttributeError) as error:
        found = f"it has no {error}" if isinstance(error, KeyError) else error
        raise DataError(
            f"The baseline is damaged: {found}.",
            remedy="Write a new one with `mobiledeploy parity --json PATH`.",
        ) from error


def _all_regressions(baseline: Document, report: Document) -> Iterator[str]:
    names = Counter(rung["name"] for rung in baseline["rungs"])
    for before, now in _paired(baseline["rungs"], report["rungs"]):
        of_several = f" ({_file_name(before)})" if names[before["name"]] > 1 else ""
        said = before["name"] + of_several
        if now is None:
            yield f"{said}: the baseline has this rung, the report has not."
        else:
            yield from (f"{said}: {text}" for text in _worse(before, now))


def _paired(
    before: Sequence[Document], now: Sequence[Document]
) -> Iterator[tuple[Document, Document | None]]:
    """Yield every rung of the baseline with that of the report; None where it has none.

    Artifacts may have moved or been renamed: of one rung, those of one file name belong together;
    what is left, in its order.
    """
    left = list(now)
    partners: dict[int, Document] = {}
    for same in (_file_name, _suffix):
        for number, rung in enumerate(before):
            wanted = (rung["name"], same(rung))
            found = next((r for r in left if (r["name"], same(r)) == wanted), None)
            if number not in partners and found is not None:
                left.remove(found)
                partners[number] = found
    for number, rung in enumerate(before):
        yield rung, partners.get(number)


def _require_same_images(before: Document, now: Document) -> None:
    if (before["sha256"], before["count"]) != (now["sha256"], now["count"]):
        raise DataError(
            f"The baseline was made with other images ({before['count']} of {before['source']});"
            f" these are {now['count']} of {now['source']}.",
            remedy="Use the same --data and --samples, or write a new baseline.",
        )


def _require_comparisons(rungs: Sequence[Document]) -> None:
    """Raise unless there is an artifact that is compared with something: nothing gets worse."""
    if not any(rung["artifact"] and rung["comparisons"] for rung in rungs):
        raise DataError(
            "The baseline is damaged, or of a run that compared no artifact with anything.",
            remedy="Write a new one with `mobiledeploy parity --json PATH`.",
        )


def _worse(before: Document, now: Document) -> Iterator[str]:
    if before["passed"] and not now["passed"]:
        yield "it passed before."
    if before["accuracy"] is not None:
        found = {} if now["accuracy"] is None else {"accuracy": now["accuracy"]}
        yield from _moved("accuracy", before, found, _ACCURACY_MAY_FALL, sign=-1)
    known = {(c["reference"], c["images"]): c["metrics"] for c in now["comparisons"]}
    for comparison in before["comparisons"]:
        if comparison["reference"] != "float" and not comparison["limits"]:
            continue
        metrics = known.get((comparison["reference"], comparison["images"]), {})
        said = f" against {comparison['reference']}"
        for name, allowance in _MAY_FALL.items():
            yield from _moved(name, comparison["metrics"], metrics, allowance, sign=-1, said=said)
        for name, allowance in _MAY_RISE.items():
            if name != "differing_logits" or _EXACT in comparison["limits"]:
                yield from _moved(
                    name, comparison["metrics"], metrics, allowance, sign=1, said=said
                )


def _moved(
    name: str, before: Document, now: Document, allowance: float, *, sign: int, said: str = ""
) -> Iterator[str]:
    """Yield a sentence if a figure moved the wrong way by more than its allowance."""
    if name not in before:
        return
    old, new = _number(name, before[name]), _number(name, now.get(name, float("nan")))
    if old == new or sign * (new - old) <= allowance + 1e-9:
        return
    yield f"{name}{said} went from {old:.4g} to {new:.4g}."


def _number(name: str, value: float | str | None) -> float:
    """Return a figure as it is compared."""
    number = decode_float(value)
    return min(number, _ROUNDING_DB) if name == "sqnr_db" else number


def _file_name(rung: Document) -> str:
    return PurePath(str(rung["artifact"])).name


def _suffix(rung: Document) -> str:
    return str(rung["artifact"]).rpartition(".")[2]
