"""What people see: progress, tables and errors on stderr; one JSON document on stdout."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from mobiledeploy.errors import RuntimeFailedError
from mobiledeploy.utils.progress import reporting_to

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import NoReturn, TextIO

    from rich.console import Console
    from rich.table import Table

    from mobiledeploy.errors import MobileDeployError

T = TypeVar("T")

_TABLE_WIDTH = 80  # at least: every table's figures have room

UNREAD = 141  # what shells expect of a command whose reader went away: 128 + SIGPIPE


@cache
def console() -> Console:
    """Return the console that people read: stderr, so that stdout stays machine-readable.

    A string is shown as it is: `[red]` and `:x:` may stand in a file's name. What has a style is
    a `rich.text.Text`.
    """
    from rich.console import Console

    class Terminal(Console):
        def on_broken_pipe(self) -> NoReturn:
            """End the command; rich's own exit code, 1, is a gate's."""
            self.quiet = True
            silence(sys.stderr)
            raise SystemExit(UNREAD)

    return Terminal(stderr=True, highlight=False, soft_wrap=False, markup=False, emoji=False)


def deliver(text: str, stream: TextIO | None) -> None:
    """Write to stdout what a command had to say there, to the last byte.

    Args:
        text: May be empty: then it makes no difference whether there is a stdout.
        stream: None where it was closed before the command began.

    Raises:
        BrokenPipeError: nobody reads it any more.
        RuntimeFailedError: it cannot be written.
    """
    if not text:
        return
    if stream is None:
        raise _undelivered("it is closed")
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError) as error:
        silence(stream)
        if isinstance(error, BrokenPipeError):
            raise
        raise _undelivered(getattr(error, "strerror", None) or error) from error


def _undelivered(reason: object) -> RuntimeFailedError:
    return RuntimeFailedError(
        f"Could not write to standard output: {reason}.",
        remedy="Send it to a file on a disk with room for it.",
    )


def silence(stream: TextIO) -> None:
    """Lead a stream to nowhere: what it still holds would be tried again when Python ends."""
    with suppress(OSError, ValueError):  # closed, or none with a descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def print_table(table: Table) -> None:
    """Print a table to where people read; lines too long for a window, rather than cut figures."""
    from rich.segment import Segments

    options = console().options.update_width(max(console().width, _TABLE_WIDTH))
    console().print(Segments(console().render(table, options)), end="", crop=False)


def print_json(document: object) -> None:
    """Write one JSON document to stdout; the only thing that ever goes there under ``--json``."""
    sys.stdout.write(json.dumps(document, indent=2, default=str) + "\n")


def write_json(path: Path, document: object, *, indent: int = 2) -> None:
    """Write a JSON document to a file, whole or not at all; `-` is stdout.

    Raises:
        RuntimeFailedError: the file cannot be written.
    """
    from mobiledeploy.utils.files import write_text

    write_text(path, json.dumps(document, indent=indent) + "\n")


def explain(error: MobileDeployError) -> None:
    """Print an error the way users meet it: what failed, then how to mend it."""
    from rich.text import Text

    console().print(Text("Error:", "bold red"), error.message, soft_wrap=True)
    if error.remedy:
        console().print(Text("Try:", "bold"), error.remedy, soft_wrap=True)


class RichReporter:
    """Shows progress with rich: a spinner or bar while it runs, one line with the time after."""

    @contextmanager
    def step(self, description: str) -> Iterator[None]:
        """Show a spinner until the block ends, then a line with the seconds it took."""
        from rich.text import Text

        began = time.perf_counter()
        with console().status(Text(f"{description}...")):
            yield
        self._done(description, began)

    def track(self, items: Iterable[T], description: str, total: int) -> Iterator[T]:
        """Yield `items` under a bar with the time left, then a line with the seconds it took."""
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        began = time.perf_counter()
        said = TextColumn("{task.description}", markup=False)
        columns = (said, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        # a bar that cannot be erased again leaves an empty line in logs and pipes
        hidden = not console().is_terminal
        with Progress(*columns, console=console(), transient=True, disable=hidden) as progress:
            yield from progress.track(items, total=total, description=description)
        self._done(description, began)

    def _done(self, description: str, began: float) -> None:
        from rich.text import Text

        took = Text(f"{time.perf_counter() - began:.1f} s", "dim")
        console().print(f"  {description}", took)


@contextmanager
def showing_progress() -> Iterator[None]:
    """Show the progress of everything inside the context on stderr."""
    with reporting_to(RichReporter()):
        yield
