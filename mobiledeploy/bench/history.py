"""Append results to a file, one line of JSON per run."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mobiledeploy.errors import RuntimeFailedError
from mobiledeploy.utils.files import require_writable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_RAW = ("times_ms", "conditions")


def require_appendable(path: Path) -> None:
    """Check before a measurement that `append` will be able to write.

    Raises:
        RuntimeFailedError: The file or its folder cannot be written.
    """
    try:
        if not path.exists():
            require_writable(path.parent)
            return
        with path.open("a"):
            pass
    except OSError as error:
        raise _not_appended(path, error) from error


def append(path: Path, document: Mapping[str, Any]) -> None:
    """Append a document of `bench` with the time of day and without its raw times.

    Raises:
        RuntimeFailedError: The file cannot be written.
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
            if _ends_within_a_line(path):  # an earlier run was interrupted, or the disk was full
                file.write("\n")
            file.write(line)
    except OSError as error:
        raise _not_appended(path, error) from error


def _ends_within_a_line(path: Path) -> bool:
    if not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


def _not_appended(path: Path, error: OSError) -> RuntimeFailedError:
    return RuntimeFailedError(
        f"Could not append to {path}: {error.strerror}.",
        remedy="Choose a file that you may write to, on a disk with room for it.",
    )
