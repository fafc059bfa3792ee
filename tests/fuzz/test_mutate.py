"""Mutations change their input, and the same random state makes the same one."""

from pathlib import Path
from random import Random

import pytest

from fuzz.readers import READERS, SEEDS


@pytest.mark.parametrize("name", READERS)
def test_mutations_are_reproducible_and_different(name):
    reader = READERS[name]
    content = (SEEDS / reader.seeds[0]).read_bytes()
    inputs = [reader.mutate(content, Random(number)) for number in range(30)]
    assert inputs == [reader.mutate(content, Random(number)) for number in range(30)]
    assert len({*inputs, content}) > 20


def test_every_seed_has_a_reader():
    known = {seed for reader in READERS.values() for seed in reader.seeds}
    assert known == {path.name for path in SEEDS.iterdir()}
    assert all(Path(SEEDS / seed).stat().st_size < 40_000 for seed in known)
