"""Write docs/cli.md, the command reference, from the command line's own definitions.

python docs/generate_cli.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from typer.main import get_command

from mobiledeploy.cli import app

PATH = Path(__file__).with_name("reference") / "cli.md"
_WIDTH = 100


def reference() -> str:
    """Return the whole page: every command's help, as it prints it at 100 columns."""
    group = get_command(app)
    parent = group.make_context(app.info.name, ["doctor"], terminal_width=_WIDTH)
    sections = [_section(parent)]
    sections += _below(group, parent)
    return "\n".join(
        (
            "# Command reference",
            "Generated from the code by `python docs/generate_cli.py`; a test compares the two.",
            "Where a file to write is asked for, `-` is stdout, for one of them.",
            "",
            *sections,
        )
    )


def _below(group: Any, parent: typer.Context) -> list[str]:
    """Return the sections of a group's commands, each followed by those below it."""
    sections = []
    for name in group.list_commands(parent):
        command = group.get_command(parent, name)
        context = typer.Context(command, parent, name, terminal_width=_WIDTH)
        sections.append(_section(context))
        if hasattr(command, "list_commands"):
            sections += _below(command, context)
    return sections


def _section(context: typer.Context) -> str:
    text = context.command.get_help(context).rstrip()
    return f"## {context.command_path}\n```text\n{text}\n```\n"


if __name__ == "__main__":
    PATH.write_text(reference())
