"""Statistics of raw times: ratios of artifacts, and reasons to doubt a measurement."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mobiledeploy.errors import UsageError
from mobiledeploy.significance import median_interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mobiledeploy.bench.results import Measurement

MAX_SPREAD = 0.10
MAX_DRIFT = 0.05
MAX_FALL = 0.10
MIN_RUNS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """The latency of a candidate as a multiple of the reference's; below 1 it is faster.

    Attributes:
        median: Median of the ratios of all rounds.
        q1: First quartile of the ratios.
        q3: Third quartile of the ratios.
        low: Lower end of the 95% confidence interval of the median.
        high: Upper end of the interval.
    """

    median: float
    q1: float
    q3: float
    low: float
    high: float

    @property
    def decided(self) -> bool:
        """Return whether the interval excludes 1: one of the two is faster."""
        return not self.low <= 1 <= self.high


def paired_ratio(reference: Measurement, candidate: Measurement) -> Ratio:
    """Compare two artifacts of one run, round by round.

    A round measures both within milliseconds of one another, so a longer disturbance of the machine
    affects both and cancels in their ratio. The interval of the median comes from order statistics
    and assumes no distribution of the times (David and Nagaraja, Order Statistics, section 7.1).

    Raises:
        UsageError: The two have different numbers of rounds.
    """
    if len(reference.times_ms) != len(candidate.times_ms):
        raise UsageError(
            f"{len(reference.times_ms)} and {len(candidate.times_ms)} times cannot be paired; "
            "expected equal numbers.",
            remedy="Measure both in one run.",
        )
    ratios = [c / r for r, c in zip(reference.times_ms, candidate.times_ms, strict=True)]
    q1, _, q3 = statistics.quantiles(ratios, n=4, method="inclusive")
    low, median, high = median_interval(ratios)
    return Ratio(median=median, q1=q1, q3=q3, low=low, high=high)


def warnings_for(times_ms: Sequence[float], *, threads: int, cores: int) -> tuple[str, ...]:
    """Return reasons to doubt a measurement, one sentence each.

    - spread: the interquartile range exceeds 10% of the median;
    - drift: the medians of the first and the last third differ by more than 5%;
    - more threads than cores;
    - fewer than 20 runs, so that p90 and p99 are close to the largest time.
    """
    found = []
    q1, median, q3 = statistics.quantiles(times_ms, n=4, method="inclusive")
    if q3 - q1 > MAX_SPREAD * median:
        found.append(
            f"The times are noisy: their interquartile range is {(q3 - q1) / median:.0%} of the "
            f"median (expected at most {MAX_SPREAD:.0%}). Close other programs and measure again."
        )
    third = max(1, len(times_ms) // 3)
    early, late = (statistics.median(part) for part in (times_ms[:third], times_ms[-third:]))
    if abs(late - early) > MAX_DRIFT * early:
        found.append(
            f"The times drift: the last third differs by {late / early - 1:+.0%} from the first "
            f"(expected at most {MAX_DRIFT:.0%}). The processor changed its frequency, or other "
            "programs started or ended."
        )
    if threads > cores:
        found.append(f"{threads} threads share {cores} cores, so they wait for one another.")
    if len(times_ms) < MIN_RUNS:
        found.append(
            f"There are only {len(times_ms)} runs (expected at least {MIN_RUNS}): p90 and p99 are "
            "close to the slowest of them."
        )
    return tuple(found)


def slowed_down(conditions: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return signs that the processor was throttled during the sessions, one sentence each.

    - the kernel counted it (`throttle_count`), or a Raspberry Pi's firmware reports it;
    - the fastest core's frequency fell by more than 10% within a session.

    Args:
        conditions: "before" and "after" of each session (`agent.machine.conditions`).
    """
    found = []
    counted = _counted(conditions)
    if counted:
        found.append(
            f"The processor was too hot and was throttled {counted} times. Cool it, or pause "
            "between the sessions with --cool-down."
        )
    flags = {c["after"]["throttled_now"] or 0 for c in conditions}
    if any(flags):
        found.append(
            f"The board reports that it is throttled (get_throttled: {max(flags):#x}): it is too "
            "hot, or its power supply is too weak."
        )
    falls = [
        after / before
        for before, after in (
            (c["before"]["frequency_mhz"], c["after"]["frequency_mhz"]) for c in conditions
        )
        if before and after
    ]
    if falls and min(falls) < 1 - MAX_FALL:
        found.append(
            f"The processor's frequency fell to {min(falls):.0%} within a session (expected at "
            f"least {1 - MAX_FALL:.0%}): it was throttled, or its governor saves power."
        )
    return tuple(found)


def _counted(conditions: Sequence[Mapping[str, Any]]) -> int:
    return sum(
        (c["after"]["throttle_count"] or 0) - (c["before"]["throttle_count"] or 0)
        for c in conditions
    )
