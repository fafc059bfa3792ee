"""Whole commands that signals stop at random moments leave nothing half-written behind."""

import random
import time

import pytest
from random_signals import COMMANDS, Workplace


@pytest.mark.ci
def test_five_signals(tmp_path):
    """Each in a command of its own; `random_signals.py` stops 100."""
    seed = time.time_ns()
    generator = random.Random(seed)
    commands = tuple(each for each in COMMANDS if each.name in {"export", "parity", "bench"})
    place = Workplace(tmp_path, commands)
    for index in range(5):
        run = place.interrupt(commands[index % len(commands)], generator)
        assert run.problems == [], (seed, run)


@pytest.mark.slow
def test_a_hundred_signals(tmp_path):
    generator = random.Random(0)
    place = Workplace(tmp_path, COMMANDS)
    runs = [place.interrupt(COMMANDS[index % len(COMMANDS)], generator) for index in range(100)]
    assert [run for run in runs if run.problems] == []
