"""Keep other libraries' chatter away from the user.

torch, torchao and executorch warn about their own internals: nothing that a user of ours could act
on. `quietly` mutes Python warnings and log records for the length of one library call, and nothing
else: exceptions pass, our own output is made outside of it.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_verbose = False


def be_verbose(verbose: bool = True) -> None:
    """Let the libraries speak (the command line's ``--verbose``)."""
    global _verbose  # noqa: PLW0603 - one switch for the process, set once at start-up
    _verbose = verbose


def is_verbose() -> bool:
    """Return whether the libraries may speak."""
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
