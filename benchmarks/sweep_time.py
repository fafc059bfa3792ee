"""Time a sweep of 24 points with two jobs against 24 single exports in a row.

    python benchmarks/sweep_time.py [--jobs 2] [--rounds 4]

Rounds of six points (a family and width at six resolutions), random weights, `--ptq fast`, `.onnx`
and `.pte`. Each round runs the sweep, and the exports one after the other, every second round in
the other order. A sweep also measures latency, which an export does not: after each export, `bench`
does the same, and its time is given apart. Prints wall and processor times and their ratios per
round, and the medians of the ratios. On a loaded machine, only processor times mean something.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROUNDS = (("v2", "0.35"), ("v3-small", "1.0"), ("v1", "0.5"), ("v2", "1.0"))
RESOLUTIONS = ("96", "128", "160", "176", "192", "224")
COMMON = ("--weights", "random", "--ptq", "fast", "--format", "onnx", "--format", "pte")
RUNS = ("--runs", "2")


@dataclass(frozen=True, slots=True)
class Cost:
    """Wall and processor time in seconds."""

    wall: float = 0.0
    cpu: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.wall + other.wall, self.cpu + other.cpu)

    def __str__(self) -> str:
        return f"{self.wall:.0f} ({self.cpu:.0f})"


def cost(*words: str) -> Cost:
    """Run a command; return the time that it takes, with all processes that it starts."""
    before, started = _cpu(), time.perf_counter()
    command = [sys.executable, "-m", "mobiledeploy", *words]
    subprocess.run(command, check=True, capture_output=True)
    return Cost(time.perf_counter() - started, _cpu() - before)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def sweep(family: str, width: str, out: Path, jobs: str) -> Cost:
    """Return the cost of a sweep of all resolutions."""
    points = ("--model", family, "--width", width, "--resolution", ",".join(RESOLUTIONS))
    return cost("sweep", *points, *COMMON, *RUNS, "--jobs", jobs, "--out", str(out))


def one_by_one(family: str, width: str, out: Path) -> tuple[Cost, Cost]:
    """Return the cost of the same exports in a row, and of measuring their latency."""
    exports = benches = Cost()
    for side in RESOLUTIONS:
        folder = out / side
        exports += cost(
            *("export", family, "--width", width, "--resolution", side, "--int8", *COMMON),
            *("--out", str(folder)),
        )
        artifacts = [str(path) for path in sorted(folder.iterdir()) if path.suffix != ".json"]
        benches += cost("bench", *artifacts, *RUNS)
    return exports, benches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", default="2")
    parser.add_argument("--rounds", type=int, choices=range(1, 5), default=4)
    arguments = parser.parse_args()
    ratios = []
    print("Seconds of wall time (of processor time).\n")
    print("| round | sweep | exports | benches | sweep / exports | sweep / (exports + benches) |")
    print("|---|---|---|---|---|---|", flush=True)
    for number, network in enumerate(ROUNDS[: arguments.rounds]):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder)
            if number % 2:
                swept = sweep(*network, out / "sweep", arguments.jobs)
                exports, benches = one_by_one(*network, out)
            else:
                exports, benches = one_by_one(*network, out)
                swept = sweep(*network, out / "sweep", arguments.jobs)
        both = exports + benches
        ratios.append((swept.wall / exports.wall, swept.wall / both.wall))
        first, second = ratios[-1]
        name = " ".join(network)
        print(
            f"| {name} | {swept} | {exports} | {benches} | {first:.2f} | {second:.2f} |", flush=True
        )
    medians = [statistics.median(each) for each in zip(*ratios, strict=True)]
    print(f"\nMedians: {medians[0]:.2f}, {medians[1]:.2f}")


if __name__ == "__main__":
    main()
