"""Write docs/cli.md, the command reference, from the command line's own definitions.

python docs/generate_cli.py
"""

from __future__ import annotations

from pathlib import Path

import typer
from typer.main import get_command

from mobiledeploy.cli import app

PATH = Path(__file__).with_name("cli.md")
_WIDTH = 100


def reference() -> str:
    """Return the whole page: every command's help, as it prints it at 100 columns."""
    group = get_command(app)
    parent = group.make_context(app.info.name, ["doctor"], terminal_width=_WIDTH)
    sections = [_section(parent)]
    for name in group.list_commands(parent):
        command = group.get_command(parent, name)
        sections.append(_section(typer.Context(command, parent, name, terminal_width=_WIDTH)))
    return "\n".join(
        (
            "# Command reference",
            "Generated from the code by `python docs/generate_cli.py`; a test compares the two.",
            "",
            *sections,
        )
    )


def _section(context: typer.Context) -> str:
    text = context.command.get_help(context).rstrip()
    return f"## {context.command_path}\n```text\n{text}\n```\n"


if __name__ == "__main__":
    PATH.write_text(reference())
