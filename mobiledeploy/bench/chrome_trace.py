"""Write profiles in Chrome's trace format, for chrome://tracing and https://ui.perfetto.dev.

Each artifact is a process whose operators follow one another, each as long as its median. The
format is Google's "Trace Event Format": complete events (ph "X"), times in microseconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mobiledeploy.bench.profile import Profile


def to_chrome_trace(profiles: Sequence[Profile]) -> dict[str, object]:
    """Return the trace as a JSON document, one process per profile."""
    events = [event for process, p in enumerate(profiles) for event in _events(process, p)]
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _events(process: int, profile: Profile) -> Iterator[dict[str, object]]:
    name = f"{Path(profile.artifact).name} ({profile.runtime}, {profile.device}; {profile.method})"
    yield {"ph": "M", "name": "process_name", "pid": process, "args": {"name": name}}
    start_us = 0.0
    for operator in profile.operators:
        yield {
            "ph": "X",
            "name": operator.name,
            "cat": operator.kind,
            "pid": process,
            "tid": 0,
            "ts": start_us,
            "dur": operator.median_us,
            "args": {"share": profile.share_of(operator.median_us)},
        }
        start_us += operator.median_us
