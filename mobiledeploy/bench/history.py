"""Results over time: one line of JSON per run, appended to a file."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mobiledeploy.errors import RuntimeFailedError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_RAW = ("times_ms", "conditions")


def append(path: Path, document: Mapping[str, Any]) -> None:
    """Append what a run found, without its raw times, and when.

    Raises:
        RuntimeFailedError: the file cannot be written.
    """
    measurements = [
        {name: value for name, value in entry.items() if name not in _RAW}
        for entry in document["measurements"]
    ]
    moment = datetime.now(UTC).isoformat(timespec="seconds")
    line = json.dumps({"measured_at": moment, **document, "measurements": measurements}) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(line)
    except OSError as error:
        raise RuntimeFailedError(
            f"Could not append to {path}: {error.strerror}.",
            remedy="Choose a file that you may write to, on a disk with room for it.",
        ) from error
