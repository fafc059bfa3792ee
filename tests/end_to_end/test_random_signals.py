"""Whole commands that signals stop at random moments leave nothing half-written behind."""

import random
import time

import pytest
from random_signals import COMMANDS, Workplace


@pytest.mark.ci
def test_five_signals(tmp_path):
    """`random_signals.py` stops commands of all kinds."""
    seed = time.time_ns()
    generator = random.Random(seed)
    export = next(each for each in COMMANDS if each.name == "export")
    place = Workplace(tmp_path, (export,))
    for _ in range(5):
        run = place.interrupt(export, generator)
        assert run.problems == [], (seed, run)


@pytest.mark.slow
def test_a_hundred_signals(tmp_path):
    generator = random.Random(0)
    place = Workplace(tmp_path, COMMANDS)
    runs = [place.interrupt(COMMANDS[index % len(COMMANDS)], generator) for index in range(100)]
    assert [run for run in runs if run.problems] == []
