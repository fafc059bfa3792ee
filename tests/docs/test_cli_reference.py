"""docs/reference/cli.md agrees with the code."""

import runpy
from pathlib import Path

import pytest


def test_the_command_reference_is_generated_from_the_code(
    repository: Path, request: pytest.FixtureRequest
):
    generator = runpy.run_path(str(repository / "docs" / "generate_cli.py"))
    page: Path = generator["PATH"]
    if request.config.getoption("--regen"):
        page.write_text(generator["reference"]())
    assert page.read_text() == generator["reference"](), (
        "docs/reference/cli.md is out of date: run `python docs/generate_cli.py`"
    )


def test_every_option_and_argument_has_a_help_text():
    from typer.main import get_command

    from mobiledeploy.cli import app

    commands = get_command(app).commands
    assert set(commands) >= {"export", "parity", "bench", "inspect", "models", "doctor"}
    nested = [
        (f"{name} {inner}", command)
        for name, group in commands.items()
        for inner, command in getattr(group, "commands", {}).items()
    ]
    assert {name for name, _ in nested} == {
        *("device bundle", "device check", "device clean", "device report", "device setup"),
    }
    missing = [
        f"{name} {parameter.name}"
        for name, command in [*commands.items(), *nested]
        for parameter in command.params
        if not parameter.help
    ]
    assert not missing
