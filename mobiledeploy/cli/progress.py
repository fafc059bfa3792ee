"""Progress on stderr: a live display on a terminal, and a line for each finished step."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from mobiledeploy.cli.output import console, print_warning
from mobiledeploy.utils.progress import reporting_to

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.progress import Progress, ProgressColumn, TextColumn

T = TypeVar("T")

_LONG_S = 2.0


class RichReporter:
    """Shows running steps with the elapsed time, and prints a line when one is done.

    A step within a step, such as choosing ranges while quantizing, is shown below the outer one.
    It leaves a line only if it takes over two seconds, and only once per outer step.

    Args:
        total: The number of outer steps where it is known: they are then numbered, "7/14".
    """

    def __init__(self, total: int | None = None) -> None:
        self._total = total
        self._count = 0
        self._outer = ""
        self._printed: set[str] = set()
        self._warned: set[str] = set()

    def warn(self, message: str) -> None:
        """Print a warning, once."""
        if message not in self._warned:
            self._warned.add(message)
            print_warning(message)

    @contextmanager
    def step(self, description: str) -> Iterator[None]:
        """Show a spinner with the elapsed time until the block ends."""
        from rich.progress import SpinnerColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), _description(), TimeElapsedColumn())
        with self._timed(description) as title, _display(*columns) as display:
            display.add_task(title, total=None)
            yield

    def track(self, items: Iterable[T], description: str, total: int) -> Iterator[T]:
        """Yield `items` under a bar with the remaining time."""
        from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn

        columns = (_description(), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with self._timed(description) as title, _display(*columns) as display:
            yield from display.track(items, total=total, description=title)

    @contextmanager
    def _timed(self, description: str) -> Iterator[str]:
        """Yield the title of a step; when it is done, print the seconds it took."""
        began = time.perf_counter()
        if self._outer:
            yield f"  {description}"
            seconds = time.perf_counter() - began
            if seconds >= _LONG_S and description not in self._printed:
                self._printed.add(description)
                _print_done(f"{self._outer}: {description[:1].lower()}{description[1:]}", seconds)
            return
        self._count += 1
        self._outer = self._numbered(description)
        self._printed = set()
        try:
            yield self._outer
            _print_done(self._outer, time.perf_counter() - began)
        finally:
            self._outer = ""

    def _numbered(self, description: str) -> str:
        if self._total is None:
            return description
        return f"{self._count:>{len(str(self._total))}}/{self._total} {description}"


def _description() -> TextColumn:
    from rich.progress import TextColumn

    return TextColumn("{task.description}", markup=False)


def _display(*columns: ProgressColumn) -> Progress:
    """Return a display that erases itself at the end.

    Outside a terminal it shows nothing: a pipe or a log cannot be erased.
    """
    from rich.progress import Progress

    return Progress(
        *columns,
        console=console(),
        transient=True,
        redirect_stdout=False,
        disable=not console().is_terminal,
    )


def _print_done(title: str, seconds: float) -> None:
    from rich.text import Text

    console().print(f"  {title}", Text(f"{seconds:.1f} s", "dim"), soft_wrap=True)


@contextmanager
def showing_progress(total: int | None = None) -> Iterator[None]:
    """Show the progress of everything inside the context on stderr.

    Args:
        total: The number of outer steps where it is known.
    """
    with reporting_to(RichReporter(total)):
        yield
