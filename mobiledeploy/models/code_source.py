"""Names of code, "FILE:CALLABLE" or "package.module:callable", and the files behind them.

Nothing is run and torch is not imported.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from mobiledeploy.errors import LoadError, UsageError
from mobiledeploy.utils.files import require_regular

EXAMPLE = "For example net.py:create, or package.module:create."


def source_of(code: str) -> tuple[str, str]:
    """Split "FILE:CALLABLE" or "package.module:callable" into its two parts.

    Raises:
        UsageError: a part is empty.
    """
    place, _, name = code.rpartition(":")
    if not place or not name.isidentifier():
        raise UsageError(
            f"{code!r} names no code; expected FILE:CALLABLE or package.module:callable.",
            remedy=EXAMPLE,
        )
    return place, name


def source_file(place: str) -> Path:
    """Return the source file of a path or of an importable module, without running it.

    Raises:
        LoadError: there is no such file or module.
    """
    if is_file(place):
        require_regular(Path(place), LoadError)
        if not Path(place).is_file():
            raise LoadError(f"There is no file {place}.", remedy="Check the path.")
        return Path(place)
    try:
        spec = importlib.util.find_spec(place)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None:
        raise LoadError(
            f"There is no module {place} that can be imported.",
            remedy="Install its package in this environment, or pass the path of a .py file.",
        )
    return Path(spec.origin)


def is_file(place: str) -> bool:
    """Return whether a place is a path rather than the name of a module."""
    return place.endswith(".py") or "/" in place or "\\" in place
