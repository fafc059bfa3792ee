"""Progress of the stages, independent of how it is displayed.

Stages report what they do with `step`, `track` and `warn`. The caller (the command line, a
notebook) installs a `Reporter` with `reporting_to`. Without a reporter they do nothing.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Protocol, TypeVar

T = TypeVar("T")


class Reporter(Protocol):
    """Displays progress."""

    def step(self, description: str) -> AbstractContextManager[None]:
        """Display a step of unknown length until the context ends."""

    def track(self, items: Iterable[T], description: str, total: int) -> Iterator[T]:
        """Yield `items`, displaying how many of `total` are done."""

    def warn(self, message: str) -> None:
        """Display a warning."""


_reporter: ContextVar[Reporter | None] = ContextVar("reporter", default=None)


@contextmanager
def reporting_to(reporter: Reporter) -> Iterator[None]:
    """Send the progress of everything inside the context to `reporter`."""
    token = _reporter.set(reporter)
    try:
        yield
    finally:
        _reporter.reset(token)


def step(description: str) -> AbstractContextManager[None]:
    """Report a step of unknown length, which ends with the context."""
    reporter = _reporter.get()
    return reporter.step(description) if reporter else nullcontext()


def track(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """Yield `items`, reporting how many of `total` are done."""
    reporter = _reporter.get()
    return reporter.track(items, description, total) if reporter else iter(items)


def warn(message: str) -> None:
    """Report a warning."""
    if reporter := _reporter.get():
        reporter.warn(message)
