"""Arguments as callers of the Python API write them: a path as `str`, one name without a list."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from mobiledeploy.errors import UsageError

StrPath = str | os.PathLike[str]
FROM_MODULE = "Pass what `build` returns; `from_module` takes a PyTorch module."
FOLD_FIRST = "Pass what `fold` returns."
LOAD_IMAGES = "Pass what `load_images` returns."


def as_path(value: StrPath, role: str) -> Path:
    """Return a path.

    Args:
        value: What the caller passed.
        role: Its name, for the error.

    Raises:
        UsageError: it is no path.
    """
    try:
        return Path(value)
    except TypeError as error:
        raise UsageError(
            f"{role} is {value!r}; expected a path, as a str or a pathlib.Path."
        ) from error


def as_paths(values: StrPath | Sequence[StrPath], role: str) -> tuple[Path, ...]:
    """Return one or more paths; a single one need not be in a list.

    Raises:
        UsageError: one of them is no path.
    """
    if isinstance(values, (str, os.PathLike)):
        return (as_path(values, role),)
    if not isinstance(values, Sequence):
        raise UsageError(f"{role} is {values!r}; expected a path or a list of paths.")
    return tuple(as_path(value, role) for value in values)


def require_instance(value: object, kinds: type | tuple[type, ...], role: str, remedy: str) -> None:
    """Check the type of an argument that is easily confused with another.

    Raises:
        UsageError: it is of another type.
    """
    if isinstance(value, kinds):
        return
    expected = " or ".join(
        each.__name__ for each in (kinds if isinstance(kinds, tuple) else [kinds])
    )
    raise UsageError(
        f"{role} is of type {type(value).__name__}; expected {expected}.", remedy=remedy
    )


def require_fields(given: object, kind: type, role: str) -> None:
    """Check that a mapping names fields of a dataclass only.

    Raises:
        UsageError: it is no mapping, or has other names.
    """
    known = [each.name for each in fields(kind)]
    remedy = f"The fields are {', '.join(known)}."
    if not isinstance(given, Mapping):
        raise UsageError(f"{role} is {given!r}; expected {kind.__name__} or a dict.", remedy=remedy)
    foreign = [str(name) for name in given if name not in known]
    if foreign:
        raise UsageError(f"{role} has no field {', '.join(foreign)}.", remedy=remedy)


def require_device(device: object) -> None:
    """Check that a device is not given by its URI: somebody has to close what a URI opens.

    Raises:
        UsageError: it is a URI.
    """
    if isinstance(device, str):
        raise UsageError(
            f"device is {device!r}; expected an open device.",
            remedy=f"Write `with open_device({device!r}) as device:` (mobiledeploy.devices.open).",
        )


def as_names(values: str | Sequence[str]) -> tuple[str, ...]:
    """Return one or more names; a single one need not be in a list."""
    return (values,) if isinstance(values, str) else tuple(values)
