"""Has an artifact become slower, or dearer in instructions, than in a result that was kept?

In: two documents of `bench --json`, the older one the baseline. Out: an `Outcome`, with a `Verdict`
per artifact that both have and the names of those that only one of them has.

Two runs are hours or months apart: the machine may have been in another mood. Where both begin
with the same artifact, byte for byte and in one version of its runtime, that one is the yardstick:
compared is by how much the others are slower than it, round by round, and the mood cancels.
Otherwise the times themselves are.
A regression is one that the spread cannot explain: the lower end of the new figure's 95% interval
lies above the upper end of the old one's by more than is allowed.

An artifact of the baseline that was not measured now is a regression, too: else a gate would pass
because what it guards was renamed or left out. One that the baseline lacks is named, and no more.

Counts of instructions have neither mood nor spread: their medians are compared as they are, also
when they come from two machines that emulate the same processor.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mobiledeploy.bench.json_report import INSTRUCTIONS, SCHEMA, TIMES, host_document
from mobiledeploy.bench.validate import validate_result
from mobiledeploy.errors import ArtifactError, GateError, UsageError
from mobiledeploy.metrics import median_interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mobiledeploy.devices.host import Host

    Document = Mapping[str, Any]
    Entry = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One artifact, now and then.

    Attributes:
        change: New median over old one, of what was compared; 1.05 is 5% slower.
        certain_change: The least change that the two intervals leave: below 1 + allowed it passes.
        yardstick: What it was measured against in both runs; "" where the figures themselves were
            compared.
        figure: What was compared.
    """

    artifact: str
    change: float
    certain_change: float
    yardstick: str
    passed: bool
    figure: Literal["time", "instructions"] = "time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of holding a result against its baseline.

    Attributes:
        verdicts: On what both have measured, in the order of the result.
        missing: File names of what only the baseline has; each is a regression.
        added: File names of what only the result has: nothing is said against it.
        max_regress: How much slower was allowed: 0.05 is 5%.
    """

    verdicts: tuple[Verdict, ...]
    missing: tuple[str, ...]
    added: tuple[str, ...]
    max_regress: float

    def document(self) -> dict[str, object]:
        """Return what `bench --json` writes as `baseline`."""
        return asdict(self) | {"passed": not self.missing and all(v.passed for v in self.verdicts)}


def read_result(path: Path, kind: str = TIMES) -> Document:
    """Read a document of `bench --json`.

    Args:
        path: The file.
        kind: `TIMES`, or `INSTRUCTIONS` for one of `bench --count-instructions`.

    Raises:
        ArtifactError: there is none, it is something else, or it is damaged.
    """
    try:
        document = json.loads(path.read_text())
        if document["kind"] not in (TIMES, INSTRUCTIONS) or document["schema"] != SCHEMA:
            raise ArtifactError(f"{path} is not a result of `mobiledeploy bench`, schema {SCHEMA}.")
        if document["kind"] != kind:
            raise ArtifactError(
                f"{path} is of the kind {document['kind']!r}; expected {kind!r}.",
                remedy="Times and counts of instructions cannot be compared.",
            )
        found = validate_result(document)
    except OSError as error:
        raise ArtifactError(f"Could not read {path}: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactError(
            f"{path} is not a result of `mobiledeploy bench`: {error}.",
            remedy="Write one with `mobiledeploy bench ARTIFACT... --json PATH`.",
        ) from error
    if found:
        raise ArtifactError(
            f"{path} is a damaged result of `mobiledeploy bench`: {found}.",
            remedy="Write it anew with `mobiledeploy bench ARTIFACT... --json PATH`.",
        )
    result: Document = document
    return result


def parse_percent(text: str) -> float:
    """Return 0.05 for "5%" (or "5").

    Raises:
        UsageError: it is no percentage, or a negative one.
    """
    try:
        share = float(text.removesuffix("%")) / 100
    except ValueError:
        share = -1.0
    if not 0 <= share < math.inf:
        raise UsageError(f"--max-regress is {text!r}; expected a percentage.", remedy="E.g. 5%.")
    return share


def compare(new: Document, baseline: Document, *, max_regress: float) -> Outcome:
    """Hold each artifact against the one of the same file name in the baseline.

    Where several have one file name, the first of them is held against the first, and so on.

    Args:
        new: As `read_result` returns.
        baseline: The same, from before.
        max_regress: How much slower is allowed: 0.05 is 5%.

    Raises:
        UsageError: the two were not measured alike, or have no artifact in common.
    """
    require_alike(new, baseline)
    now, then = new["measurements"], baseline["measurements"]
    shared = (
        new["kind"] == TIMES
        # by a runtime that has become slower everything else would seem to have become faster
        and all(now[0][field] == then[0][field] for field in ("artifact_sha256", "runtime"))
        and min(len(now), len(then)) > 1
    )
    yardsticks = (now[0], then[0]) if shared else None
    current, old = _by_name(now[shared:]), _by_name(then[shared:])
    pairs = [(entry, old[key]) for key, entry in current.items() if key in old]
    if not pairs:
        raise UsageError(
            "The baseline has no artifact of the same file name: there is nothing to compare.",
            remedy=f"It holds {', '.join(sorted(name for name, _ in old)) or 'none'}.",
        )
    return Outcome(
        verdicts=tuple(_judge(entry, before, yardsticks, max_regress) for entry, before in pairs),
        missing=tuple(_said(*key) for key in old if key not in current),
        added=tuple(_said(*key) for key in current if key not in old),
        max_regress=max_regress,
    )


def circumstances(kind: str, host: Host, threads: int) -> Document:
    """Return what a result will say of its circumstances, before anything is measured."""
    return {"kind": kind, "host": host_document(host), "measurements": [{"threads": threads}]}


def require(outcome: Outcome) -> None:
    """Raise where an artifact has become slower than is allowed, or was not measured any more.

    Raises:
        GateError: the message names each.
    """
    regressed = [
        f"{v.artifact} takes {v.change - 1:+.1%} (at least {v.certain_change - 1:+.1%}) against"
        f" {v.yardstick or 'the baseline'}"
        for v in outcome.verdicts
        if not v.passed
    ]
    failures, remedies = [], []
    if regressed:
        how = "Slower" if outcome.verdicts[0].figure == "time" else "More instructions"
        allowed = f"{100 * outcome.max_regress:g}%"
        failures.append(f"{how} than the baseline by more than {allowed}: {'; '.join(regressed)}.")
        remedies.append("Measure again to be sure; write a new baseline if it is meant.")
    if outcome.missing:
        names = ", ".join(outcome.missing)
        failures.append(f"In the baseline, but not measured now: {names}.")
        remedies.append(f"Name {names} as well, or write a new baseline if it is gone for good.")
    if failures:
        raise GateError(" ".join(failures), remedy=" ".join(remedies))


def _judge(
    entry: Entry, before: Entry, yardsticks: tuple[Entry, Entry] | None, max_regress: float
) -> Verdict:
    figures = [
        median_interval(_figures(e, yardsticks[i] if yardsticks else None))
        for i, e in enumerate((entry, before))
    ]
    (low, median, _), (_, old_median, old_high) = figures
    return Verdict(
        artifact=_name(entry),
        change=median / old_median,
        certain_change=low / old_high,
        yardstick=_name(yardsticks[0]) if yardsticks else "",
        passed=low <= (1 + max_regress) * old_high,
        figure="instructions" if "instructions" in entry else "time",
    )


def _figures(entry: Entry, yardstick: Entry | None) -> list[float]:
    if "instructions" in entry:
        return [statistics.median(entry["instructions"])]
    times: list[float] = entry["times_ms"]
    if yardstick is None:
        return times
    return [t / r for t, r in zip(times, yardstick["times_ms"], strict=True)]


def require_alike(new: Document, baseline: Document) -> None:
    """Raise unless both are of the same kind, processor, place and number of threads.

    Args:
        new: As `read_result` returns; of what is about to be measured, `circumstances` do.
        baseline: As `read_result` returns.

    Raises:
        UsageError: the first of these that differs.
    """
    for what, found, expected in (
        ("kind", new["kind"], baseline["kind"]),
        ("device", _place(new), _place(baseline)),
        ("threads", _threads(new), _threads(baseline)),
    ):
        if found != expected:
            raise UsageError(
                f"The baseline cannot be compared: its {what} is {expected}, here it is {found}.",
                remedy="Measure a baseline on this device, with the same --threads.",
            )


def _place(document: Document) -> str:
    """Return what the figures depend on: times on a machine, counts on the processor only."""
    host = document["host"]
    if document["kind"] == INSTRUCTIONS:
        features = ", ".join(host["features"] or ()) or "no int8 instructions"
        return f"{host['architecture']} with {features}"
    return f"{host['place']} ({host['model']}, {host['architecture']})"


def _threads(document: Document) -> int:
    threads: int = document["measurements"][0]["threads"]
    return threads


def _name(entry: Entry) -> str:
    return Path(entry["artifact"]).name


def _by_name(entries: Sequence[Entry]) -> dict[tuple[str, int], Entry]:
    """Return entries by file name and place among those of that name: folders may share names."""
    found: dict[tuple[str, int], Entry] = {}
    seen: Counter[str] = Counter()
    for entry in entries:
        name = _name(entry)
        found[name, seen[name]] = entry
        seen[name] += 1
    return found


def _said(name: str, place: int) -> str:
    return f"{name} (number {place + 1} of that name)" if place else name
