"""Try many inputs, count how they end, and save the findings."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from fuzz.isolate import HARD_LIMIT_BYTES, LIMIT_BYTES, LIMIT_S, RIGHT, Outcome, run_isolated
from fuzz.readers import READERS, SEEDS
from mobiledeploy.devices.agent.machine import describe

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CORPUS = Path(__file__).with_name("corpus")


@dataclass(slots=True)
class Tally:
    """How the inputs of one reader ended."""

    reader: str
    endings: Counter[str] = field(default_factory=Counter)
    grown_bytes: int = 0
    slowest_s: float = 0.0

    def add(self, outcome: Outcome) -> None:
        """Count one input."""
        self.endings[outcome.ending] += 1
        self.grown_bytes = max(self.grown_bytes, outcome.grown_bytes)
        self.slowest_s = max(self.slowest_s, outcome.took_s)

    @property
    def findings(self) -> int:
        """Return how many inputs ended in a way that must not happen."""
        return self.endings.total() - sum(self.endings[right] for right in RIGHT)


def run(
    names: Sequence[str] | None, *, seed: int, inputs: int, minutes: float | None
) -> list[Tally]:
    """Try mutated seeds with the named readers, or with all.

    Args:
        names: Keys of `READERS`.
        seed: Of the mutations.
        inputs: Per reader.
        minutes: In place of `inputs`: the time for all readers together.
    """
    chosen = list(names or READERS)
    tallies = []
    for name in chosen:
        _warm(name)
        until = None if minutes is None else time.monotonic() + 60 * minutes / len(chosen)
        tally = Tally(name)
        tallies.append(tally)
        with (
            contextlib.suppress(KeyboardInterrupt),  # Ctrl-C ends a reader, and keeps its figures
            tempfile.TemporaryDirectory(prefix="fuzz-") as folder,
        ):
            for path in _mutated(name, seed, Path(folder)):
                done = tally.endings.total()
                if done >= inputs if until is None else time.monotonic() >= until:
                    break
                _try(path, tally)
    return tallies


def replay(names: Sequence[str] | None) -> list[Tally]:
    """Read all seeds, and the inputs that were findings once; none of them may be one again."""
    tallies = []
    for name in names or READERS:
        _warm(name)
        tally = Tally(name)
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            paths = [SEEDS / seed for seed in READERS[name].seeds]
            for path in [*paths, *sorted((CORPUS / name).glob("*"))]:
                copy = Path(folder) / path.name  # a reader may write beside its input
                copy.write_bytes(_content(path) if path.parent == SEEDS else path.read_bytes())
                _try(copy, tally)
        tallies.append(tally)
    return tallies


def _warm(name: str) -> None:
    """Read a seed in this process, so that its forks find modules and caches filled."""
    reader = READERS[name]
    if not reader.is_native:
        reader.read(SEEDS / reader.seeds[0])


def _mutated(name: str, seed: int, folder: Path) -> Iterator[Path]:
    """Yield files, one at a time; the number of an input and the seed decide its content."""
    reader = READERS[name]
    number = 0
    while True:
        random = Random(f"{name} {seed} {number}")
        source = SEEDS / random.choice(reader.seeds)
        path = folder / source.name
        path.write_bytes(reader.mutate(_content(source), random))
        yield path
        path.unlink(missing_ok=True)
        number += 1


def _content(seed: Path) -> bytes:
    """Return a seed; before recorded messages stands how this machine describes itself."""
    content = seed.read_bytes()
    if seed.suffix != ".messages":
        return content
    return b"\x1e" + json.dumps({"hello": describe()}).encode() + b"\n" + content


def _try(path: Path, tally: Tally) -> None:
    """Read one file, count how that ends, and save the file if it is a finding."""
    content = path.read_bytes()
    reader = READERS[tally.reader]
    limit_bytes = HARD_LIMIT_BYTES if reader.is_native else LIMIT_BYTES
    outcome = run_isolated(lambda: reader.read(path), limit_bytes=limit_bytes)
    if outcome.ending == "hang":  # or another program took the processor
        path.write_bytes(content)
        outcome = run_isolated(
            lambda: reader.read(path), limit_s=4 * LIMIT_S, limit_bytes=limit_bytes
        )
    tally.add(outcome)
    if outcome.is_finding or outcome.ending == "contained":
        folder = CORPUS / tally.reader
        folder.mkdir(parents=True, exist_ok=True)
        saved = folder / f"{hashlib.sha256(content).hexdigest()[:12]}{path.suffix}"
        saved.write_bytes(content)
        sys.stdout.write(f"{tally.reader}: {outcome.ending}, {saved}\n{outcome.detail}\n")
        sys.stdout.flush()


def table(tallies: Sequence[Tally]) -> str:
    """Return the tallies as a Markdown table."""
    heads = ("inputs", *RIGHT, "bug", "crash", "hang", "memory")
    lines = [
        f"| reader | {' | '.join(heads)} | most memory, MiB | slowest, s |",
        f"|---|{'--:|' * (len(heads) + 2)}",
    ]
    total = Tally("all")
    for tally in tallies:
        total.endings.update(tally.endings)
        total.grown_bytes = max(total.grown_bytes, tally.grown_bytes)
        total.slowest_s = max(total.slowest_s, tally.slowest_s)
    for tally in [*tallies, total]:
        counts = [tally.endings.total(), *(tally.endings[head] for head in heads[1:])]
        cells = [*map(str, counts), str(tally.grown_bytes >> 20), f"{tally.slowest_s:.1f}"]
        lines.append(f"| {tally.reader} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
