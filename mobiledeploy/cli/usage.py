"""Usage errors that Typer finds, in the form of all other errors."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from mobiledeploy.errors import UsageError

if TYPE_CHECKING:
    from typer.exceptions import TyperException

# by the type of pydantic's error: Typer converts option values with pydantic
_MESSAGES = {
    "int_parsing": "{input!r}; expected a whole number",
    "int_from_float": "{input!r}; expected a whole number",
    "float_parsing": "{input!r}; expected a number",
    "greater_than_equal": "{input}; expected at least {ge:g}",
    "less_than_equal": "{input}; expected at most {le:g}",
}
_SIMILAR = 0.7
_TYPERS_PREFIX = "Value error, "


def usage_error(error: TyperException) -> UsageError:
    """Return an error of Typer's as a `UsageError`.

    Args:
        error: An unknown option or command, a missing or superfluous argument, or an option value
            that is not valid.
    """
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "mobiledeploy"
    return UsageError(_message(error), remedy=_repeated(error) or f"{command} --help")


def _repeated(error: TyperException) -> str:
    """Return the option as it has to be given where several values were joined with commas."""
    parameter = getattr(error, "param", None)
    message = error.message.removeprefix(_TYPERS_PREFIX)
    given, _, choices = message.partition(" is not one of ")
    values = given.strip("'").split(",")
    if parameter is None or not parameter.multiple or len(values) == 1:
        return ""
    if not all(f"'{value}'" in choices for value in values):
        return ""
    return " ".join(f"{parameter.opts[0]} {value}" for value in values)


def _message(error: TyperException) -> str:
    parameter = getattr(error, "param", None)
    if parameter is not None and (error.__cause__ is not None or error.message):
        return f"{parameter.get_error_hint().strip(chr(39))}{_value_message(error)}"
    known = getattr(error, "possibilities", None)
    if known is not None:
        similar = get_close_matches(error.message.rpartition(" ")[2], known, cutoff=_SIMILAR)
        return f"{error.message}." + (f" Did you mean {' or '.join(similar)}?" if similar else "")
    _, extra, arguments = error.format_message().partition("Got unexpected extra argument(s) (")
    if extra:
        return f"Unexpected argument: {arguments.removesuffix(')')}."
    return error.format_message()


def _value_message(error: TyperException) -> str:
    """Return what is wrong with the value of an option, to be put after the option's name."""
    errors = getattr(error.__cause__, "errors", None)
    if errors is None:
        return f": {error.message}"
    found: dict[str, Any] = errors()[0]
    if found["type"] in _MESSAGES:
        values = found.get("ctx", {}) | {"input": found["input"]}
        return f" is {_MESSAGES[found['type']].format(**values)}."
    return f": {found['msg'].removeprefix(_TYPERS_PREFIX)}"
