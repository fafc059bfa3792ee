"""How error messages quote the output of a command that failed."""

from __future__ import annotations

_LINES = 5


def last_output(text: str) -> str:
    """Return the last lines of a command's output as the end of an error message; "" if none."""
    lines = "\n".join(text.strip().splitlines()[-_LINES:])
    return f" Last output:\n{lines}" if lines else ""
