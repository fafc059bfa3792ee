"""`mobiledeploy doctor`: whether this machine can export, and how to fix what it lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mobiledeploy.cli.output import print_json, print_result, wrapped
from mobiledeploy.cli.progress import showing_progress
from mobiledeploy.errors import RuntimeFailedError

if TYPE_CHECKING:
    from pathlib import Path

    from mobiledeploy.doctor import Check

_STATE_WIDTH = len("missing ")
_COLOURS = {"ok": "green", "missing": "yellow", "broken": "red"}


def doctor(
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document to stdout.")
    ] = False,
) -> None:
    """Check that this machine can export, or say how to fix it."""
    from mobiledeploy.doctor import examine

    with showing_progress():
        checks = examine()
    if not any(check.fatal for check in checks):
        checks += _storage()
    fatal = [check.name for check in checks if check.fatal]
    if as_json:
        from mobiledeploy.cli.check_documents import DoctorDocument

        print_json(DoctorDocument(healthy=not fatal, checks=checks).model_dump(mode="json"))
    else:
        print_checks(checks)
    if fatal:
        raise RuntimeFailedError(
            f"`mobiledeploy export` cannot work here because of {', '.join(fatal)}.",
            remedy="Follow the advice below these lines, then run `mobiledeploy doctor` again.",
        )


def _storage() -> tuple[Check, ...]:
    """Check the cache and the weights in it; needs torch, which their package imports."""
    from mobiledeploy.checkpoints.hub import cache_folder, cached
    from mobiledeploy.checkpoints.published import PUBLISHED
    from mobiledeploy.doctor import examine_storage
    from mobiledeploy.models.spec import ModelSpec

    weights: dict[str, Path | None] = {
        family: cached(ModelSpec(family=family)) for family in PUBLISHED
    }
    return examine_storage(cache_folder(), weights)


def print_checks(checks: tuple[Check, ...]) -> None:
    """Print one line for each check, and below it how to fix what it found."""
    from rich.text import Text

    width = max(len(check.name) for check in checks)
    indent = _STATE_WIDTH + width + 2
    for check in checks:
        found = f"{check.state:{_STATE_WIDTH}}{check.name:{width}}  {check.found}"
        first, *more = wrapped(found, indent=indent)
        state = Text(first[:_STATE_WIDTH], _COLOURS[check.state])
        print_result(state, first[_STATE_WIDTH:], separator="")
        for line in (*more, *wrapped(" " * indent + check.remedy, indent=indent)):
            print_result(line)
