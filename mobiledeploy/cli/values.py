"""Helpers for option values."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mobiledeploy.errors import UsageError

if TYPE_CHECKING:
    from mobiledeploy.quantization.mixed_precision import MixedPrecision

_MAX_DIGITS = 9
_DAY_S = 86400
_HOTTEST_C = 150


def not_nan(value: float | None) -> float | None:
    """Return the value of an option.

    Raises:
        typer.BadParameter: it is NaN, which a gate could not compare with anything.
    """
    if value is not None and math.isnan(value):
        raise typer.BadParameter("nan is not a number.")
    return value


def parse_seconds(text: str | float) -> float:
    """Return the seconds of "30s" or "30".

    Raises:
        typer.BadParameter: it is no number from 0 to a day.
    """
    return _number(text, unit="s", low=0, high=_DAY_S, example="30s")


def parse_celsius(text: str | float) -> float:
    """Return the degrees of "37C" or "37".

    Raises:
        typer.BadParameter: it is no number from 0 to 150.
    """
    return _number(text, unit="C", low=0, high=_HOTTEST_C, example="37C")


def _number(text: str | float, *, unit: str, low: float, high: float, example: str) -> float:
    try:
        value = float(str(text).strip().removesuffix(unit))
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise typer.BadParameter(
            f"{text!r} is not a number from {low:g} to {high:g}, for example {example}."
        )
    return value


def parse_resolution(text: str | None) -> int | tuple[int, int] | None:
    """Parse "224" or "160x120", which is height and width.

    Raises:
        UsageError: it is neither.
    """
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(map(_is_number, sides)):
        raise UsageError(
            f"--resolution is {text!r}; expected pixels, or height and width.",
            remedy="For example: --resolution 224, or --resolution 160x120",
        )
    height, width = int(sides[0]), int(sides[-1])
    return height if height == width else (height, width)


def _is_number(text: str) -> bool:
    return text.isdecimal() and len(text) <= _MAX_DIGITS


def was_given(context: typer.Context, name: str) -> bool:
    """Return whether an option was given on the command line, even with its default value."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def options_given(context: typer.Context, names: Container[str]) -> list[str]:
    """Return those of a command's options that were given, such as "--ptq", by their parameters."""
    return [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name in names and was_given(context, parameter.name or "")
    ]


def refuse_without(needed: str, context: typer.Context, names: Container[str]) -> None:
    """Raise if options were given that mean nothing without the option `needed`.

    Args:
        needed: The option that was not given, with its value, such as "--device URI".
        context: The command's options.
        names: The parameters of the options that need it.

    Raises:
        UsageError: the message names the options that were given.
    """
    given = options_given(context, names)
    if given:
        need, them = ("needs", "it") if len(given) == 1 else ("need", "them")
        raise UsageError(
            f"{' and '.join(given)} {need} {needed.split(maxsplit=1)[0]}, which was not given.",
            remedy=f"Add {needed}, or leave {them} out.",
        )


def with_manifests(artifacts: Iterable[Path]) -> Iterator[Path]:
    """Yield each artifact, followed by its manifest."""
    for artifact in artifacts:
        yield artifact
        yield Path(f"{artifact}.json")


def parse_keep_float(text: str | None, min_sqnr_db: float | None) -> int | tuple[str, ...] | None:
    """Return the value of `--keep-float`: a number of layers, or their names.

    Args:
        text: None if the option was not given.
        min_sqnr_db: The value of `--min-sqnr`.

    Raises:
        UsageError: `text` is neither a number from 1 nor a list of names, or both options were
            given.
    """
    if text is None:
        return None
    if min_sqnr_db is not None:
        raise UsageError(
            "--keep-float and --min-sqnr exclude one another: --keep-float names the layers that"
            " stay in float, --min-sqnr has them chosen.",
            remedy="Give one of the two.",
        )
    text = text.strip()
    if text.lstrip("-").isdecimal():
        text = text[: _MAX_DIGITS + 1]  # int() refuses thousands of digits
        if int(text) >= 1:
            return int(text)
    elif names := tuple(name.strip() for name in text.split(",") if name.strip()):
        return names
    raise UsageError(
        f"--keep-float is {text!r}; expected a number of layers from 1, or names of layers.",
        remedy="For example: --keep-float 2, or --keep-float features.0.0,classifier.1",
    )


def mixed_precision(
    keep_float: int | tuple[str, ...] | None, min_sqnr_db: float | None
) -> MixedPrecision | None:
    """Return what `--keep-float` and `--min-sqnr` ask for; None if neither was given.

    Args:
        keep_float: From `parse_keep_float`.
        min_sqnr_db: The value of `--min-sqnr`.
    """
    from mobiledeploy.quantization.mixed_precision import MixedPrecision

    if min_sqnr_db is not None:
        return MixedPrecision(min_sqnr_db=min_sqnr_db)
    if keep_float is None:
        return None
    if isinstance(keep_float, int):
        return MixedPrecision(count=keep_float)
    return MixedPrecision(names=keep_float)
