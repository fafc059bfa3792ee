"""What was measured or counted as one JSON document."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from mobiledeploy.bench.results import InstructionCount, Measurement
from mobiledeploy.bench.stats import paired_ratio
from mobiledeploy.utils.json_numbers import encode_floats

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mobiledeploy.bench.results import OutputCheck
    from mobiledeploy.devices.host import Host

SCHEMA = 1
TIMES = "mobiledeploy.bench"
INSTRUCTIONS = "mobiledeploy.bench.instructions"


def host_document(host: Host) -> dict[str, object]:
    """Return a machine as `bench --json` writes it."""
    return {
        "architecture": host.architecture,
        "model": host.model,
        "cores": host.cores,
        "features": None if host.features is None else sorted(host.features),
        "place": host.place,
        "os": host.os,
        "emulated": host.emulated,
        "runtimes": dict(host.runtimes),
        "conditions": dict(host.conditions),
    }


def to_document(
    measurements: Sequence[Measurement] | Sequence[InstructionCount],
    host: Host,
    notes: Sequence[str],
) -> dict[str, object]:
    """Return what `mobiledeploy bench --json` writes, of one `kind` or the other.

    Raw times stand beside what was derived from them, so that anybody can derive something else.
    Ratios are to the first artifact, pairwise by round (see `stats.paired_ratio`).
    """
    times = [m for m in measurements if isinstance(m, Measurement)]
    counts = [m for m in measurements if isinstance(m, InstructionCount)]
    entries = [_timed(m, times[0]) for m in times] + [_counted(c, counts[0]) for c in counts]
    return {
        "schema": SCHEMA,
        "kind": TIMES if times else INSTRUCTIONS,
        "host": host_document(host),
        "notes": list(notes),
        "measurements": entries,
    }


def _timed(measurement: Measurement, first: Measurement) -> dict[str, object]:
    return asdict(measurement) | {
        "median_ms": measurement.median_ms,
        "p90_ms": measurement.percentile_ms(90),
        "p99_ms": measurement.percentile_ms(99),
        "iqr_ms": measurement.iqr_ms,
        "ratio_to_first": asdict(paired_ratio(first, measurement)),
        "outputs": _outputs(measurement.outputs),
    }


def _counted(count: InstructionCount, first: InstructionCount) -> dict[str, object]:
    return asdict(count) | {
        "median_instructions": count.median,
        "ratio_to_first": count.median / first.median,
        "outputs": _outputs(count.outputs),
    }


def _outputs(check: OutputCheck | None) -> dict[str, object] | None:
    if check is None:
        return None
    return asdict(check) | {"sqnr_db": encode_floats(check.sqnr_db)}
