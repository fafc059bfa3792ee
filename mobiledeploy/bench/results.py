"""What is measured of an artifact on a device; parts of the documents of `json_report`."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveFloat, PositiveInt, computed_field

from mobiledeploy.utils.json_model import JsonFloat, JsonModel

_TimeMs = Annotated[PositiveFloat, Field(allow_inf_nan=False)]


class OutputCheck(JsonModel):
    """A device's outputs compared with this machine's, for the same inputs.

    Attributes:
        values: How many outputs were compared.
        differing: How many of them are not equal to the last bit.
        sqnr_db: SQNR with this machine's outputs as the signal: +inf if all are equal, -inf if
            there is no signal, NaN if an output is NaN.
    """

    values: int
    differing: int
    sqnr_db: JsonFloat


class ArtifactResult(JsonModel):
    """What every result of an artifact has.

    Attributes:
        artifact: Its path.
        artifact_sha256: sha256 of the file.
        runtime: Name and version of the runtime.
        device: Label of the device.
        threads: Threads that computed one inference.
        warmup: Inferences that ran before those that were measured, in each session.
        affinity: Cores that the process was bound to, empty for all; None in older documents.
        warnings: Reasons to doubt the figures, one sentence each.
    """

    artifact: str
    artifact_sha256: str
    runtime: str
    device: str
    threads: PositiveInt
    warmup: int
    affinity: tuple[int, ...] | None = None
    warnings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Return the file name of the artifact."""
        return Path(self.artifact).name


class Measurement(ArtifactResult):
    """The times of one artifact on one device.

    Attributes:
        times_ms: Latency of each inference, in the order in which they were measured.
        load_ms: Time from opening the file until the network is ready, median over sessions.
        first_ms: Time of the first inference, which also allocates, median over sessions.
        peak_memory_bytes: Peak resident memory that loading and running added; None where the
            device does not report it.
        conditions: What the device's speed depended on, before and after each session.
        outputs: Comparison with this machine's outputs; None on this machine, and if the device
            does not return outputs.
    """

    times_ms: tuple[_TimeMs, ...] = Field(min_length=2)
    load_ms: float
    first_ms: float
    peak_memory_bytes: int | None
    conditions: tuple[Mapping[str, Any], ...] = ()
    outputs: OutputCheck | None = None

    @computed_field  # type: ignore[prop-decorator]  # mypy has no decorated properties
    @property
    def median_ms(self) -> float:
        """Return the median latency."""
        return statistics.median(self.times_ms)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def p90_ms(self) -> float:
        """Return the 90th percentile of the latency."""
        return self.percentile_ms(90)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def p99_ms(self) -> float:
        """Return the 99th percentile of the latency."""
        return self.percentile_ms(99)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def iqr_ms(self) -> float:
        """Return the interquartile range of the latency."""
        return self.percentile_ms(75) - self.percentile_ms(25)

    def percentile_ms(self, percent: int) -> float:
        """Return a percentile of the latency, 1 <= percent <= 99 (inclusive method)."""
        return statistics.quantiles(self.times_ms, n=100, method="inclusive")[percent - 1]


class InstructionCount(ArtifactResult):
    """The instructions that one artifact's inferences take on one processor.

    Attributes:
        instructions: The count of each inference, in order.
        outputs: Comparison with this machine's outputs.
    """

    instructions: tuple[PositiveInt, ...] = Field(min_length=1)
    outputs: OutputCheck

    @computed_field  # type: ignore[prop-decorator]
    @property
    def median_instructions(self) -> float:
        """Return the median count."""
        return statistics.median(self.instructions)
