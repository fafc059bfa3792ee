"""Compare a result of `bench` with an earlier one: has an artifact become slower?

Two runs are hours or months apart, and the speed of the machine may have changed in between. If
both runs begin with the same artifact (same sha256, same version of the runtime), that artifact is
the reference: the ratios of the others to it are compared, round by round, so that a change of the
machine's speed cancels out. Otherwise the times themselves are compared.

An artifact has regressed if the spread does not explain the change: the lower end of the new 95%
interval is above the upper end of the old one by more than the allowed regression. An artifact that
is only in the baseline is a regression too; otherwise a gate would pass when an artifact was
renamed or left out. One that is only in the result is listed.

Instruction counts have no such noise. Their medians are compared as they are, also between machines
that emulate the same processor.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mobiledeploy.bench.json_report import (
    BaselineComparison,
    InstructionsResult,
    Machine,
    TimesResult,
    Verdict,
)
from mobiledeploy.bench.results import InstructionCount, Measurement
from mobiledeploy.errors import GateError, UsageError
from mobiledeploy.significance import median_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mobiledeploy.devices.host import Host

    Result = TimesResult | InstructionsResult
    Entry = Measurement | InstructionCount


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What has to be equal for two results to be comparable.

    Attributes:
        kind: The kind of the document.
        device: Times depend on the machine, instruction counts only on the processor's features.
        threads: Threads that compute one inference.
        cores: Cores that the process is bound to; "" if that is unknown or does not matter.
    """

    kind: str
    device: str
    threads: int
    cores: str


def setup_of(result: Result) -> Setup:
    """Return the setup of a result."""
    first = result.measurements[0]
    return _setup(type(result), result.host, first.threads, first.affinity)


def planned_setup(
    document: type[Result], host: Host, threads: int, affinity: tuple[int, ...] = ()
) -> Setup:
    """Return the setup that a document of this type will have, before it is measured."""
    return _setup(document, Machine.of(host), threads, affinity)


def _setup(
    document: type[Result], machine: Machine, threads: int, affinity: tuple[int, ...] | None
) -> Setup:
    kind: str = document.model_fields["kind"].default
    device = f"{machine.uri} ({machine.model}, {machine.architecture})"
    cores = ""
    if affinity is not None:
        cores = ", ".join(map(str, affinity)) or "all"
    if document is InstructionsResult:
        cores = ""
        features = ", ".join(machine.features or ()) or "no int8 instructions"
        device = f"{machine.architecture} with {features}"
    return Setup(kind=kind, device=device, threads=threads, cores=cores)


def require_same_setup(new: Setup, baseline: Setup) -> None:
    """Raise unless two results are comparable.

    Raises:
        UsageError: The message names the first difference.
    """
    for what, found, expected in (
        ("kind", new.kind, baseline.kind),
        ("device", new.device, baseline.device),
        ("number of threads", new.threads, baseline.threads),
        ("choice of cores", new.cores or baseline.cores, baseline.cores or new.cores),
    ):
        if found != expected:
            raise UsageError(
                f"The baseline cannot be compared: its {what} is {expected}, that of this run is "
                f"{found}.",
                remedy="Measure a baseline on this device with the same --threads and cores.",
            )


def parse_percent(text: str) -> float:
    """Return 0.05 for "5%" or "5".

    Raises:
        UsageError: The text is not a percentage, or a negative one.
    """
    try:
        share = float(text.removesuffix("%")) / 100
    except ValueError:
        share = -1.0
    if not 0 <= share < math.inf:
        raise UsageError(
            f"--max-regress is {text!r}; expected a percentage.", remedy="For example 5%."
        )
    return share


def compare(new: Result, baseline: Result, *, max_regress: float) -> BaselineComparison:
    """Compare every artifact with the one of the same file name in the baseline.

    If several have the same file name, they are paired in their order.

    Args:
        new: The result of this run.
        baseline: The earlier result.
        max_regress: The allowed regression; 0.05 is 5%.

    Raises:
        UsageError: The two have different setups, or no artifact in common.
    """
    require_same_setup(setup_of(new), setup_of(baseline))
    now, then = new.measurements, baseline.measurements
    references = _common_reference(new, baseline)
    skipped = 0 if references is None else 1
    current, old = _by_name(now[skipped:]), _by_name(then[skipped:])
    pairs = [(entry, old[key]) for key, entry in current.items() if key in old]
    if not pairs:
        names = ", ".join(sorted(name for name, _ in old)) or "none"
        raise UsageError(
            f"There is nothing to compare: the artifacts of the baseline are {names}.",
            remedy="Measure artifacts with the same file names.",
        )
    return BaselineComparison(
        verdicts=tuple(_verdict(entry, before, references, max_regress) for entry, before in pairs),
        missing=tuple(_describe(*key) for key in old if key not in current),
        added=tuple(_describe(*key) for key in current if key not in old),
        max_regress=max_regress,
    )


def require_no_regression(comparison: BaselineComparison) -> None:
    """Raise if an artifact has regressed or is missing.

    Raises:
        GateError: The message names each artifact.
    """
    regressed = [verdict for verdict in comparison.verdicts if not verdict.passed]
    failures, remedies = [], []
    if regressed:
        change = "Slower" if regressed[0].metric == "time" else "More instructions"
        details = "; ".join(
            f"{v.artifact} {v.ratio - 1:+.1%} (at least {v.ratio_low - 1:+.1%})"
            + (f" relative to {v.reference}" if v.reference else "")
            for v in regressed
        )
        allowed = f"{100 * comparison.max_regress:g}%"
        failures.append(f"{change} than the baseline by more than {allowed}: {details}.")
        remedies.append("Measure again to be sure; write a new baseline if this is intended.")
    if comparison.missing:
        names = ", ".join(comparison.missing)
        failures.append(f"In the baseline, but not measured now: {names}.")
        remedies.append(f"Measure {names} as well, or write a new baseline without it.")
    if failures:
        raise GateError(" ".join(failures), remedy=" ".join(remedies))


def _common_reference(new: Result, baseline: Result) -> tuple[Measurement, Measurement] | None:
    """Return the first measurement of both, if it is the same artifact in the same runtime.

    With another version of the runtime it is no reference: if the runtime has become slower for the
    reference, all other artifacts would seem to have become faster.
    """
    if not (isinstance(new, TimesResult) and isinstance(baseline, TimesResult)):
        return None
    now, then = new.measurements[0], baseline.measurements[0]
    same = (now.artifact_sha256, now.runtime) == (then.artifact_sha256, then.runtime)
    others = min(len(new.measurements), len(baseline.measurements)) > 1
    return (now, then) if same and others else None


def _verdict(
    entry: Entry,
    before: Entry,
    references: tuple[Measurement, Measurement] | None,
    max_regress: float,
) -> Verdict:
    now, then = references or (None, None)
    low, median, _ = median_interval(_values(entry, now))
    _, old_median, old_high = median_interval(_values(before, then))
    return Verdict(
        artifact=entry.name,
        metric="instructions" if isinstance(entry, InstructionCount) else "time",
        ratio=median / old_median,
        ratio_low=low / old_high,
        reference="" if now is None else now.name,
        passed=low <= (1 + max_regress) * old_high,
    )


def _values(entry: Entry, reference: Measurement | None) -> Sequence[float]:
    """Return what is compared: the median count, the times, or their ratios to the reference."""
    if isinstance(entry, InstructionCount):
        return [entry.median_instructions]
    if reference is None:
        return entry.times_ms
    return [t / r for t, r in zip(entry.times_ms, reference.times_ms, strict=True)]


def _by_name(entries: Sequence[Entry]) -> dict[tuple[str, int], Entry]:
    """Return entries by file name and index among the entries of that name."""
    found: dict[tuple[str, int], Entry] = {}
    seen: Counter[str] = Counter()
    for entry in entries:
        found[entry.name, seen[entry.name]] = entry
        seen[entry.name] += 1
    return found


def _describe(name: str, index: int) -> str:
    return f"{name} (number {index + 1} of that name)" if index else name
