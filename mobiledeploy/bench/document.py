"""Measurements as one JSON document."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING

from mobiledeploy.bench.stats import paired_ratio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mobiledeploy.devices.host import Host
    from mobiledeploy.types import Measurement

SCHEMA = 1


def to_document(
    measurements: Sequence[Measurement], host: Host, notes: Sequence[str]
) -> dict[str, object]:
    """Return what `mobiledeploy bench --json` writes.

    Raw times stand beside what was derived from them, so that anybody can derive something else.
    Ratios are to the first artifact, pairwise by round (see `stats.paired_ratio`).
    """
    return {
        "schema": SCHEMA,
        "kind": "mobiledeploy.bench",
        "host": {
            "architecture": host.architecture,
            "model": host.model,
            "cores": host.cores,
            "features": None if host.features is None else sorted(host.features),
            "place": host.place,
            "os": host.os,
            "emulated": host.emulated,
            "runtimes": dict(host.runtimes),
            "conditions": dict(host.conditions),
        },
        "notes": list(notes),
        "measurements": [_entry(m, measurements[0]) for m in measurements],
    }


def _entry(measurement: Measurement, first: Measurement) -> dict[str, object]:
    derived = {
        "median_ms": measurement.median_ms,
        "p90_ms": measurement.percentile_ms(90),
        "p99_ms": measurement.percentile_ms(99),
        "iqr_ms": measurement.iqr_ms,
        "ratio_to_first": asdict(paired_ratio(first, measurement)),
    }
    entry = asdict(measurement) | derived
    if measurement.outputs is not None and math.isinf(measurement.outputs.sqnr_db):
        entry["outputs"] |= {"sqnr_db": None}  # none differs; JSON has no infinity
    return entry
