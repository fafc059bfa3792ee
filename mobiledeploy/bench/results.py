"""What comes out: artifacts, and what was measured on a device."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputCheck:
    """A device's outputs held against this machine's, on the same inputs.

    Attributes:
        values: How many were compared.
        differing: How many of them are not the same to the last bit.
        sqnr_db: Signal to noise, this machine's outputs being the signal; infinite where none
            differs, -inf where there is no signal or boundless noise, NaN where one is no number.
    """

    values: int
    differing: int
    sqnr_db: float


@dataclass(frozen=True, slots=True, kw_only=True)
class InstructionCount:
    """How many instructions one artifact's inferences take on one processor.

    Attributes:
        warmup: Inferences that came before and were not counted.
        instructions: One count per inference, in order.
        warnings: What makes the figures doubtful, one sentence each.
        outputs: How the device's outputs compare with this machine's.
    """

    artifact: str
    artifact_sha256: str
    runtime: str
    device: str
    threads: int
    warmup: int
    instructions: tuple[int, ...]
    warnings: tuple[str, ...]
    outputs: OutputCheck

    @property
    def median(self) -> float:
        """Return the median count."""
        return statistics.median(self.instructions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Raw times of one artifact on one device, and what follows from them.

    Attributes:
        times_ms: One per counted inference, in the order measured.
        load_ms: From the file to a runner that is ready.
        first_ms: The first inference, which also allocates.
        peak_memory_bytes: Peak resident memory that loading and running added; None where the
            device does not tell.
        warnings: What makes the figures doubtful, one sentence each.
        conditions: Of each session, what the device's speed depended on, before and after.
        outputs: How the device's outputs compare with this machine's; None on this machine.
    """

    artifact: str
    artifact_sha256: str
    runtime: str
    device: str
    threads: int
    warmup: int
    times_ms: tuple[float, ...]
    load_ms: float
    first_ms: float
    peak_memory_bytes: int | None
    warnings: tuple[str, ...] = ()
    conditions: tuple[Mapping[str, Any], ...] = ()
    outputs: OutputCheck | None = None

    @property
    def median_ms(self) -> float:
        """Return the median latency."""
        return statistics.median(self.times_ms)

    def percentile_ms(self, percent: int) -> float:
        """Return a percentile of the latency (inclusive method), for 1 <= percent <= 99."""
        return statistics.quantiles(self.times_ms, n=100, method="inclusive")[percent - 1]

    @property
    def iqr_ms(self) -> float:
        """Return the interquartile range: the spread of the middle half."""
        return self.percentile_ms(75) - self.percentile_ms(25)
