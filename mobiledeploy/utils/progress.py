"""Progress, decoupled from how it is shown.

Stages say what they do through `step` and `track`; whoever runs them (the command line, a notebook)
installs a `Reporter`. Without one, both are silent and cost nothing.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Protocol, TypeVar

T = TypeVar("T")


class Reporter(Protocol):
    """Shows progress to somebody."""

    def step(self, description: str) -> AbstractContextManager[None]:
        """Show that one step of unknown length is running, until the context ends."""

    def track(self, items: Iterable[T], description: str, total: int) -> Iterator[T]:
        """Yield `items`, showing how many of `total` are done."""


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
    """Announce one step of unknown length."""
    reporter = _reporter.get()
    return reporter.step(description) if reporter else nullcontext()


def track(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """Iterate over `items` under a progress bar of `total` steps."""
    reporter = _reporter.get()
    return reporter.track(items, description, total) if reporter else iter(items)
