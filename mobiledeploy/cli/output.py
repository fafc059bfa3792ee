"""What a command prints: results to stdout; progress, notes and errors to stderr.

Results are tables and sentences that answer the command. Where a document goes to stdout
(`--json`, or `-` as a path), results go to stderr, so that stdout holds the document and nothing
else.
"""

from __future__ import annotations

import json
import os
import sys
import textwrap
from contextlib import suppress
from functools import cache
from io import TextIOBase
from typing import TYPE_CHECKING

from mobiledeploy.errors import RuntimeFailedError, without_credentials
from mobiledeploy.utils.files import STDOUT, reason_of, write_text
from mobiledeploy.utils.visible_text import visible

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any, NoReturn, TextIO

    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table
    from rich.text import Text

    from mobiledeploy.errors import MobileDeployError

TABLE_WIDTH = 80  # tables are laid out for at least this width, so that no figure is cut

_UNLIMITED = 10_000  # columns: more than any table takes

UNREAD = 141  # what shells expect of a command whose reader went away: 128 + SIGPIPE

_stdout_is_reserved = False


@cache
def console() -> Console:
    """Return the console for progress, notes and errors: stderr.

    Strings are printed as they are, except for control characters (see `visible`): `[red]` and
    `:x:` may be part of a file's name. Styled text is a `rich.text.Text`.
    """
    return _terminal()(stderr=True, highlight=False, markup=False, emoji=False)


def results() -> Console:
    """Return the console for results: stdout, or stderr while stdout is reserved."""
    if _stdout_is_reserved:
        return console()
    return _terminal()(highlight=False, markup=False, emoji=False)


@cache
def _terminal() -> type[Console]:
    """Return the class of both consoles: everything that they print is escaped by `visible`."""
    from rich.console import Console
    from rich.segment import Segment

    class Terminal(Console):
        def on_broken_pipe(self) -> NoReturn:
            """End the command with `UNREAD`; rich would exit with 1, the code of a failed gate."""
            self.quiet = True
            silence(sys.stderr)
            raise SystemExit(UNREAD)

        def render_str(self, text: str, **options: Any) -> Text:
            """Escape strings before they are measured, so that tables have room for the escapes."""
            return super().render_str(visible(without_credentials(text)), **options)

        def render(
            self, renderable: RenderableType, options: ConsoleOptions | None = None
        ) -> Iterator[Segment]:
            """Escape what is no string, such as `Text`; rich's own sequences are controls."""
            for segment in super().render(renderable, options):
                if segment.control or segment.text.isprintable():
                    yield segment
                else:
                    yield Segment(visible(segment.text), segment.style)

    return Terminal


def reserve_stdout(*documents: Path | None) -> None:
    """Send results to stderr from now on if one of `documents` is stdout (`-`)."""
    global _stdout_is_reserved  # noqa: PLW0603 - one command per process, reset when one starts
    _stdout_is_reserved = STDOUT in documents


def print_result(*texts: str | Text, separator: str = " ") -> None:
    """Print one line of results; long lines are not wrapped."""
    results().print(*texts, sep=separator, soft_wrap=True)


def print_wrapped(text: str, *, indent: int = 0) -> None:
    """Print a text of results in lines of the window's width, or of 80 columns.

    Args:
        text: The text. Paths and other long words are not broken.
        indent: Columns by which all lines but the first are indented.
    """
    for line in wrapped(text, indent=indent):
        print_result(line)


def wrapped(text: str, *, indent: int = 0) -> list[str]:
    """Return the lines that `print_wrapped` prints."""
    return textwrap.wrap(
        visible(text),
        max(results().width, TABLE_WIDTH),
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def print_table(table: Table) -> None:
    """Print a table of results; in a narrow window lines overflow rather than cut a word."""
    from rich.measure import Measurement
    from rich.segment import Segment, Segments

    target = results()
    unlimited = target.options.update_width(_UNLIMITED)
    for column in table.columns:
        if column.max_width is None and column.overflow != "fold":  # not to be shortened on purpose
            cells = [column.header, *column.cells]
            words = [Measurement.get(target, unlimited, cell).minimum for cell in cells]
            column.min_width = max(words)
    narrowest = Measurement.get(target, unlimited, table).minimum
    options = target.options.update_width(max(target.width, TABLE_WIDTH, narrowest))
    for line in Segment.split_lines(target.render(table, options)):
        while line and not line[-1].text.strip():
            line.pop()
        if line:
            last = line.pop()
            line.append(Segment(last.text.rstrip(), last.style))
        target.print(Segments([*line, Segment.line()]), crop=False)


def print_note(text: str) -> None:
    """Print a note about the results to stderr."""
    console().print(f"Note: {text}", soft_wrap=True)


def print_warning(text: str, *, title: str = "Warning") -> None:
    """Print a warning to stderr."""
    from rich.text import Text

    console().print(Text(f"{title}:", "bold yellow"), text, soft_wrap=True)


def print_json(document: object) -> None:
    """Print one JSON document to stdout."""
    sys.stdout.write(json.dumps(document, indent=2, default=str) + "\n")


def write_json(path: Path, document: object, *, indent: int = 2) -> None:
    """Write a JSON document to a file, whole or not at all; `-` is stdout.

    Raises:
        RuntimeFailedError: the file cannot be written.
    """
    write_text(path, json.dumps(document, indent=indent) + "\n")


def explain(error: MobileDeployError) -> None:
    """Print an error: what failed, then how to fix it."""
    from rich.text import Text

    console().print(Text("Error:", "bold red"), error.message, soft_wrap=True)
    if error.remedy:
        console().print(Text("Try:", "bold"), error.remedy, soft_wrap=True)


def silence(stream: TextIO) -> None:
    """Redirect a stream to nowhere, so that Python does not flush the rest of it at exit."""
    with suppress(OSError, ValueError):  # closed, or without a descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class Stdout(TextIOBase):
    """The process's stdout, which remembers that it could not be written instead of raising.

    A command whose reader has gone (`| head`) still writes its reports and judges its gates.

    Args:
        stream: None if stdout was closed before the command began.
    """

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self._stream = stream
        self._failure: OSError | ValueError | None = None

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a property of TextIOBase, too
        """Return the encoding of the stream, which decides whether tables are drawn in ASCII."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return self._stream is not None and not self._stream.closed and self._stream.isatty()

    def fileno(self) -> int:
        """Return the descriptor of the stream.

        Raises:
            OSError: it has none.
        """
        if self._stream is None:
            raise OSError("stdout is closed")
        return self._stream.fileno()

    def write(self, text: str) -> int:
        """Write and flush `text`; characters that the stream cannot encode become escapes."""
        if not isinstance(text, str):
            raise TypeError(f"expected text, found {type(text).__name__}")
        if text and self._failure is None:
            try:
                self._write(text)
            except (OSError, ValueError) as error:
                self._failure = error
                if self._stream is not None:
                    silence(self._stream)
        return len(text)

    def _write(self, text: str) -> None:
        if self._stream is None:
            raise ValueError("it is closed")
        encoded = text.encode(self.encoding, errors="backslashreplace")
        self._stream.write(encoded.decode(self.encoding))
        self._stream.flush()

    def require_written(self) -> None:
        """Raise if something could not be written.

        Raises:
            BrokenPipeError: the reader has gone.
            RuntimeFailedError: stdout is closed, or its disk is full.
        """
        if isinstance(self._failure, BrokenPipeError):
            raise self._failure
        if self._failure is not None:
            raise RuntimeFailedError(
                f"Could not write to standard output: {reason_of(self._failure)}.",
                remedy="Redirect it to a file on a disk with free space.",
            ) from self._failure
