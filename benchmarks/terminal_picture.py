"""Draw what a real export shows in the terminal, for README and tutorial.

    python benchmarks/terminal_picture.py

Runs `mobiledeploy export` in a pseudo-terminal and writes the screen as it is at the end to
docs/assets/terminal.svg. It takes a minute or two.
"""

import argparse
import io
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

import pyte
from rich.console import Console
from rich.style import Style
from rich.text import Text

PICTURE = Path(__file__).parents[1] / "docs" / "assets" / "terminal.svg"
EXPORT = ("mobiledeploy", "export", "v2", "--int8", "--format", "pte", "--format", "onnx")
COLUMNS, ROWS = 92, 60


def main() -> None:
    """Run an export in a pseudo-terminal; draw the screen as it is at the end."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    with TemporaryDirectory() as folder:
        for part in _output_of(EXPORT, Path(folder)):
            stream.feed(part)
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.assemble(("$ ", "bold green"), (" ".join(EXPORT), "bold")))
    last = max(row for row, text in enumerate(screen.display) if text.strip())
    for row in range(last + 1):
        console.print(_line(screen, row), soft_wrap=True)
    PICTURE.parent.mkdir(exist_ok=True)
    console.save_svg(str(PICTURE), title="mobiledeploy export", unique_id="mobiledeploy")


def _output_of(command: tuple[str, ...], folder: Path) -> Iterator[bytes]:
    """Yield what a command writes to a terminal of the screen's size, as it comes."""
    ours, theirs = pty.openpty()
    environment = os.environ | {
        "COLUMNS": str(COLUMNS),
        "LINES": str(ROWS),
        "TERM": "xterm-256color",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    while True:
        try:
            part = os.read(ours, 1 << 16)
        except OSError:  # Linux: the other end was closed
            break
        if not part:
            break
        yield part
    os.close(ours)
    if process.wait():
        raise SystemExit(f"{' '.join(command)} ended with code {process.returncode}")


def _line(screen: pyte.Screen, row: int) -> Text:
    """Return a row of the emulated screen with its colours."""
    cells = [screen.buffer[row][column] for column in range(screen.columns)]
    text = Text()
    for style, group in groupby(cells, key=_style):
        text.append("".join(cell.data for cell in group), style)
    text.rstrip()
    return text


def _style(cell: pyte.screens.Char) -> Style:
    colour = None if cell.fg == "default" else cell.fg.replace("bright", "bright_")
    return Style(color=colour, bold=cell.bold, italic=cell.italics)


if __name__ == "__main__":
    main()
