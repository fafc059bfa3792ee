"""Time a sweep of 24 points with two jobs against 24 single exports in a row.

    python benchmarks/sweep_time.py [--jobs 2] [--rounds 4]

Rounds of six points (a family and width at six resolutions), random weights, `--ptq fast`,
`.onnx` and `.pte`. Each round runs the sweep and the exports one after the other, every second
round in the other order. Prints both times and their ratio per round, and the median.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = (("v2", "0.35"), ("v3-small", "1.0"), ("v1", "0.5"), ("v2", "1.0"))
RESOLUTIONS = ("96", "128", "160", "176", "192", "224")
COMMON = ("--weights", "random", "--ptq", "fast", "--format", "onnx", "--format", "pte")


def seconds(commands: list[list[str]]) -> float:
    """Run commands one after the other; return the time that they take together."""
    started = time.perf_counter()
    for words in commands:
        subprocess.run(
            [sys.executable, "-m", "mobiledeploy", *words], check=True, capture_output=True
        )
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", default="2")
    parser.add_argument("--rounds", type=int, choices=range(1, 5), default=4)
    arguments = parser.parse_args()
    jobs = arguments.jobs
    ratios = []
    print("| round | sweep s | exports s | ratio |\n|---|---|---|---|")
    for number, (family, width) in enumerate(ROUNDS[: arguments.rounds]):
        with tempfile.TemporaryDirectory() as folder:
            sweep = ["sweep", "--model", family, "--width", width, *COMMON, "--runs", "2"]
            sweep += ["--resolution", ",".join(RESOLUTIONS), "--jobs", jobs]
            sweep += ["--out", str(Path(folder, "sweep"))]
            single = ["export", family, "--int8", "--width", width, *COMMON]
            single += ["--out", str(Path(folder, "single"))]
            exports = [[*single, "--resolution", side] for side in RESOLUTIONS]
            in_order = [[sweep], exports]
            times = [seconds(each) for each in (in_order if number % 2 else in_order[::-1])]
        swept, exported = times if number % 2 else times[::-1]
        ratios.append(swept / exported)
        print(f"| {family} {width} | {swept:.0f} | {exported:.0f} | {ratios[-1]:.2f} |", flush=True)
    print(f"\nMedian: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
