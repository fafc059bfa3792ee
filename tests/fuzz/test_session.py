"""Inputs that were bugs stay mended, and a short run finds none."""

import subprocess
import sys

import pytest

from fuzz.readers import READERS


def fuzz(repository, *arguments):
    """Run the fuzzer; return its table as rows of cells."""
    done = subprocess.run(
        [sys.executable, "-m", "fuzz", *map(str, arguments)],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    lines = done.stdout.splitlines()[2:]
    return {cells[0]: cells[1:] for cells in (line.strip("| ").split(" | ") for line in lines)}


def test_seeds_are_accepted_and_former_bugs_are_refused(repository):
    table = fuzz(repository, "--replay")
    for name, reader in READERS.items():
        saved = len(list((repository / "fuzz" / "corpus" / name).glob("*")))
        inputs, accepted, *_ = map(int, table[name][:2])
        assert inputs == len(reader.seeds) + saved, name
        assert accepted >= len(reader.seeds), f"{name}: run python -m fuzz.make_seeds"


@pytest.mark.ci
def test_a_few_new_inputs_are_no_bugs(repository):
    table = fuzz(repository, "--inputs", 6, "--seed", 31)
    assert int(table["all"][0]) == 6 * len(READERS)
