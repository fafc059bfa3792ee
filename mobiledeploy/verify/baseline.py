"""Is a report worse than one that was stored before?

In: both as documents (see `report.document`). Out: what got worse, one sentence each. The same
artifacts on the same images give the same figures, so every loss beyond the allowance is real.

Invariant: reports that cannot be compared are refused; a rung that is missing now is a regression.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mobiledeploy.errors import DataError, GateError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Document = Mapping[str, Any]

# Which figures of a comparison may fall or rise by how much before it counts.
_MAY_FALL = {"sqnr_db": 0.5, "top1_agreement": 0.01, "top5_agreement": 0.01}
_MAY_RISE = {"differing_logits": 0.0, "worst_flip_margin": 0.5}
_ACCURACY_MAY_FALL = 0.005


def regressions(baseline: Document, report: Document) -> list[str]:
    """Return what got worse since `baseline`; empty where nothing did.

    Raises:
        DataError: the baseline is no parity report, or of another network or other images.
    """
    _require_comparable(baseline, report)
    rungs = {(r["name"], _suffix(r)): r for r in report["rungs"]}
    said: list[str] = []
    for before in baseline["rungs"]:
        now = rungs.get((before["name"], _suffix(before)))
        if now is None:
            said.append(f"{before['name']}: the baseline has this rung, the report has not.")
        else:
            said += [f"{before['name']}: {text}" for text in _worse(before, now)]
    return said


def require_no_regression(baseline: Document, report: Document) -> None:
    """Raise if anything got worse.

    Raises:
        GateError: naming all that did.
        DataError: the two cannot be compared.
    """
    said = regressions(baseline, report)
    if said:
        raise GateError(
            "Worse than the baseline. " + " ".join(said),
            remedy="Find the change that did it with `mobiledeploy diff`, or store a new baseline.",
        )


def _require_comparable(baseline: Document, report: Document) -> None:
    if not isinstance(baseline, dict) or baseline.get("kind") != report["kind"]:
        raise DataError(
            "The baseline is not a parity report.",
            remedy="Give what `mobiledeploy parity --json PATH` wrote.",
        )
    for key, what in (("schema", "schema"), ("network", "network"), ("precision", "precision")):
        if baseline.get(key) != report[key]:
            raise DataError(
                f"The baseline has {what} {baseline.get(key)!r}, the report {report[key]!r}: they"
                " cannot be compared.",
                remedy="Write a new baseline with `mobiledeploy parity --json PATH`.",
            )
    before, now = baseline["data"], report["data"]
    if (before["sha256"], before["count"]) != (now["sha256"], now["count"]):
        raise DataError(
            f"The baseline was made with other images ({before['count']} of {before['source']});"
            f" these are {now['count']} of {now['source']}.",
            remedy="Use the same --data and --samples, or write a new baseline.",
        )


def _worse(before: Document, now: Document) -> Iterator[str]:
    if before["accuracy"] is not None and now["accuracy"] is not None:
        lost = before["accuracy"] - now["accuracy"]
        if lost > _ACCURACY_MAY_FALL:
            yield f"top-1 fell from {before['accuracy']:.3f} to {now['accuracy']:.3f}."
    if before["passed"] and not now["passed"]:
        yield "it passed before."
    known = {(c["reference"], c["images"]): c["metrics"] for c in now["comparisons"]}
    for comparison in before["comparisons"]:
        found = known.get((comparison["reference"], comparison["images"]), {})
        for name, allowance in _MAY_FALL.items():
            yield from _moved(name, comparison, found, allowance, sign=-1)
        for name, allowance in _MAY_RISE.items():
            yield from _moved(name, comparison, found, allowance, sign=1)


def _moved(
    name: str, before: Document, now: Mapping[str, Any], allowance: float, *, sign: int
) -> Iterator[str]:
    """Yield a sentence if a figure moved the wrong way by more than its allowance."""
    if name not in before["metrics"]:
        return
    old, new = _number(before["metrics"][name]), _number(now.get(name, float("nan")))
    if old == new or sign * (new - old) <= allowance:
        return
    reference = before["reference"]
    yield f"{name} against {reference} went from {old:.4g} to {new:.4g}."


def _number(value: float | None) -> float:
    """Return a figure; JSON has no infinity and writes null."""
    return float("inf") if value is None else value


def _suffix(rung: Document) -> str:
    return str(rung["artifact"]).rpartition(".")[2]
