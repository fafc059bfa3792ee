"""How much memory a piece of work takes at its peak."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


class PeakMemory:
    """Peak resident memory from construction on, less what was resident then.

    Resident memory counts the pages of a mapped file that were touched: an artifact's weights
    count whether a runtime reads or maps them.

    Linux resets the process's peak at construction. Elsewhere the peak is the process's so far, so
    that something that was larger before hides what comes after: the figure is then too small,
    never too large. Measure in a fresh process.
    """

    def __init__(self) -> None:
        if sys.platform == "linux":
            # Some containers forbid it; then the peak is that of the process, as elsewhere.
            with suppress(OSError):
                _CLEAR_REFS.write_text(_RESET_PEAK)
        self._before = _status_bytes("VmRSS") or _process_peak_bytes()

    def added_bytes(self) -> int:
        """Return the peak so far, less what was resident at the beginning."""
        return max(0, (_status_bytes("VmHWM") or _process_peak_bytes()) - self._before)


def _status_bytes(field: str) -> int | None:
    """Return a field of /proc/self/status, which Linux alone has."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    values = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return int(values[0]) * 1024 if values else None


def _process_peak_bytes() -> int:
    """Return the largest resident size that this process ever had; macOS counts in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
