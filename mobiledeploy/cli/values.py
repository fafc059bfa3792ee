"""What was typed: whether an option was, and numbers that ranges let through."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import typer


def a_number(value: float | None) -> float | None:
    """Return the value of an option.

    Raises:
        typer.BadParameter: it is NaN, which is neither more nor less than anything: no gate.
    """
    if value is not None and math.isnan(value):
        raise typer.BadParameter("nan is not a number.")
    return value


def typed(context: typer.Context, name: str) -> bool:
    """Return whether an option was given, be it as its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def with_manifests(artifacts: Iterable[Path]) -> Iterator[Path]:
    """Yield each artifact and its manifest: a command that reads the one reads the other."""
    for artifact in artifacts:
        yield artifact
        yield Path(f"{artifact}.json")
