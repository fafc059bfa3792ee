"""Results that do not depend on how many cores a machine has.

In float the order of a sum decides its last bits, and the number of threads decides the order.
Where a decision hangs on such bits (a range, the rounding of a weight), two machines would come to
two networks from one command. On one thread they come to one.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")


def on_one_thread(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function so that torch computes on one thread while it runs."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return function(*args, **kwargs)
        finally:
            torch.set_num_threads(before)

    return wrapped
