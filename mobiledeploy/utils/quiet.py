"""Mute the warnings of other libraries.

torch, torchao and executorch warn about their internals when they are imported and called. Users
cannot act on these warnings. `quietly` mutes Python warnings and log records while one import or
call runs. Exceptions are not affected.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_verbose = False


def be_verbose(verbose: bool = True) -> None:
    """Let `quietly` mute nothing (the command line's ``--verbose``)."""
    global _verbose  # noqa: PLW0603 - one switch for the process, set once at start-up
    _verbose = verbose


def is_verbose() -> bool:
    """Return whether `quietly` mutes nothing."""
    return _verbose


@contextmanager
def quietly() -> Iterator[None]:
    """Mute warnings and log records below CRITICAL inside the context, unless verbose."""
    if _verbose:
        yield
        return
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
