"""What follows from raw times: how two artifacts compare, and when not to believe it."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mobiledeploy.errors import UsageError
from mobiledeploy.metrics import median_interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mobiledeploy.bench.results import Measurement

MAX_SPREAD = 0.10
MAX_DRIFT = 0.05
MAX_FALL = 0.10
MIN_RUNS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """How many times as long as the reference a candidate takes; below 1 it is faster.

    Attributes:
        median: Of the ratios of each round.
        q1: First quartile of these.
        q3: Third quartile.
        low: Lower end of the 95% confidence interval of the median.
        high: Upper end.
    """

    median: float
    q1: float
    q3: float
    low: float
    high: float

    @property
    def decided(self) -> bool:
        """Return whether the interval leaves 1 out: one of the two is the faster."""
        return not self.low <= 1 <= self.high


def paired_ratio(reference: Measurement, candidate: Measurement) -> Ratio:
    """Compare two artifacts that were measured in one run, round by round.

    A round measures both within milliseconds of one another: what disturbs the machine for longer
    than that disturbs both, and leaves the ratio of the round as it is. The interval of the median
    comes from order statistics (David and Nagaraja, Order Statistics, section 7.1): it assumes
    nothing about how times are distributed.

    Raises:
        UsageError: the two do not have the same number of rounds, or fewer than two.
    """
    if len(reference.times_ms) != len(candidate.times_ms) or len(reference.times_ms) < 2:
        raise UsageError(
            f"{len(reference.times_ms)} and {len(candidate.times_ms)} times cannot be paired; "
            "expected as many of each, and at least 2.",
            remedy="Measure both in one run.",
        )
    ratios = [c / r for r, c in zip(reference.times_ms, candidate.times_ms, strict=True)]
    q1, _, q3 = statistics.quantiles(ratios, n=4, method="inclusive")
    low, median, high = median_interval(ratios)
    return Ratio(median=median, q1=q1, q3=q3, low=low, high=high)


def warnings_for(times_ms: Sequence[float], *, threads: int, cores: int) -> tuple[str, ...]:
    """Return what makes a measurement doubtful, one sentence each.

    - spread: the middle half of the times (IQR) is wider than 10% of their median;
    - drift: the medians of the first and the last third differ by more than 5%;
    - more threads than cores;
    - fewer than 20 runs, so that p90 and p99 are little more than the largest time.
    """
    found = []
    q1, median, q3 = statistics.quantiles(times_ms, n=4, method="inclusive")
    if q3 - q1 > MAX_SPREAD * median:
        found.append(
            f"The machine is noisy: the middle half of the times spreads over "
            f"{(q3 - q1) / median:.0%} of the median (expected at most {MAX_SPREAD:.0%}). Close "
            "other programs and measure again."
        )
    third = max(1, len(times_ms) // 3)
    early, late = (statistics.median(part) for part in (times_ms[:third], times_ms[-third:]))
    if abs(late - early) > MAX_DRIFT * early:
        found.append(
            f"The times drift: the last third takes {late / early - 1:+.0%} against the first "
            f"(expected within {MAX_DRIFT:.0%}). The processor changes its frequency, or other "
            "programs came or went."
        )
    if threads > cores:
        found.append(f"{threads} threads share {cores} cores: they wait for one another.")
    if len(times_ms) < MIN_RUNS:
        found.append(
            f"{len(times_ms)} runs are few (expected at least {MIN_RUNS}): p90 and p99 are little "
            "more than the slowest of them."
        )
    return tuple(found)


def slowed_down(conditions: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return what says that the processor was slowed down during the sessions.

    - the kernel has counted it (`throttle_count`), or a Raspberry Pi's firmware says so;
    - the fastest core's frequency fell by more than 10% within a session.

    Args:
        conditions: "before" and "after" of each session (`agent.machine.conditions`).
    """
    found = []
    counted = _counted(conditions)
    if counted:
        found.append(
            f"The processor grew too hot and was slowed down {counted} times. Cool it, or rest "
            "between the sessions with --cool-down."
        )
    words = {c["after"]["throttled_now"] or 0 for c in conditions}
    if any(words):
        found.append(
            "The board says that it is slowed down, by heat or for want of power "
            f"(get_throttled: {max(words):#x})."
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
            f"least {1 - MAX_FALL:.0%}): it throttles, or its governor saves power."
        )
    return tuple(found)


def _counted(conditions: Sequence[Mapping[str, Any]]) -> int:
    return sum(
        (c["after"]["throttle_count"] or 0) - (c["before"]["throttle_count"] or 0)
        for c in conditions
    )
