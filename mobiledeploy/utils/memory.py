"""Memory that is free, and errors for what does not fit into it."""

from __future__ import annotations

import re
from pathlib import Path

from mobiledeploy.errors import RuntimeFailedError

# what torch's allocator raises is a RuntimeError
_ALLOCATOR = re.compile(r"can't allocate memory: you tried to allocate (\d+) bytes")
_REMEDY = "Make the network or the set of images smaller, or free some memory."


def free_bytes() -> int | None:
    """Return the memory that can be used without swapping, in bytes; None if unknown."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        (kilobytes,) = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    except (OSError, ValueError):  # no Linux
        return None
    return 1024 * int(kilobytes)


def require_memory(needed: int, what: str) -> None:
    """Raise unless so many bytes are free; without it, the system would end the process later.

    Args:
        needed: Bytes.
        what: What takes them, in plural, such as "The weights".

    Raises:
        RuntimeFailedError: they are not free.
    """
    free = free_bytes()
    if free is not None and needed > free:
        raise RuntimeFailedError(
            f"{what} take {needed / 1e9:,.1f} GB of memory; {free / 1e9:,.1f} GB are free.",
            remedy=_REMEDY,
        )


def out_of_memory(error: Exception) -> RuntimeFailedError | None:
    """Return the error to report if memory ran out: it says how much was asked for, if known."""
    found = _ALLOCATOR.search(str(error))
    if found:
        return RuntimeFailedError(
            f"Out of memory: {int(found[1]) / 1e9:,.1f} GB were asked for.", remedy=_REMEDY
        )
    if isinstance(error, MemoryError):
        # numpy: "Unable to allocate 7.45 GiB for an array with shape ..."
        detail = f": {error}" if str(error) else ""
        return RuntimeFailedError(f"Out of memory{detail}.", remedy=_REMEDY)
    return None
