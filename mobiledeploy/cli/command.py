"""The class of all commands, which writes arguments in help texts as users know them."""

from __future__ import annotations

from typing import Any

from typer.core import TyperArgument, TyperCommand


class Command(TyperCommand):
    """Writes `ARTIFACT...` where Typer writes `{ARTIFACT}...` and `ARTIFACT <list[Path]>`."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words after the command's name in its usage line."""
        return [piece.strip("{").replace("}", "") for piece in super().collect_usage_pieces(ctx)]

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters; arguments show no Python type in the help."""
        parameters = super().get_params(ctx)
        for parameter in parameters:
            if isinstance(parameter, TyperArgument):
                parameter.display_type_rich = _no_type  # type: ignore[method-assign]
        return parameters


def _no_type(ctx: Any) -> None:  # noqa: ARG001 - the signature of Typer's method
    return None
