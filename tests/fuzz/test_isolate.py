"""Every way in which reading an input can end is noticed."""

import mmap
import os
import signal
import time

import numpy as np
import pytest

from fuzz.isolate import run_isolated
from mobiledeploy.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore:This process")  # Python 3.12: fork and threads


def refuse():
    raise DataError("It is damaged.")


def fill(size: int) -> None:
    """Write into new memory; an array may lie where the parent has written before."""
    memory = mmap.mmap(-1, size)
    for page in range(0, size, mmap.PAGESIZE):
        memory[page] = 1


@pytest.mark.parametrize(
    ("function", "ending", "detail"),
    [
        (lambda: 1, "accepted", ""),
        (refuse, "refused", "DataError 3: It is damaged."),
        (lambda: {}["x"], "bug", "KeyError: 'x'"),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), "crash", "SIGSEGV"),
        (lambda: os._exit(7), "crash", "code 7"),
        (lambda: time.sleep(60), "hang", "time limit"),
        (lambda: np.ones(2**40), "memory", "Unable to allocate"),
        (lambda: fill(64 << 20), "memory", "accepted after growing by"),
    ],
    ids=["accepted", "refused", "bug", "signal", "exit", "hang", "too much", "growth"],
)
def test_every_ending_is_told_apart(function, ending, detail):
    outcome = run_isolated(function, limit_s=1.5, limit_bytes=32 << 20)
    assert outcome.ending == ending
    assert detail in outcome.detail
    assert outcome.is_finding == (ending not in ("accepted", "refused"))


def test_the_growth_of_memory_is_measured():
    outcome = run_isolated(lambda: fill(32 << 20))
    assert 30 << 20 < outcome.grown_bytes < 60 << 20
