"""Time exports against ExecuTorch's own flow, both as new processes, one after the other.

    python benchmarks/export_time.py [--rounds 5] [--networks v2 v3-large] [--calib-data FOLDER]

Prints medians with their range: wall time, CPU time and peak memory of each command, the ratio to
ExecuTorch's own quantizer and lowering (`stock.write_stock_executorch`) with as many images, and
the seconds of each step of our last run. Weights: ImageNet for V2, random for the others.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

SAMPLES = 100
STOCK = """
from pathlib import Path
import sys
sys.path.insert(0, {here!r})
from mobiledeploy.utils.quiet import quietly
with quietly():
    from mobiledeploy.graph.fold_batch_norm import fold
    from mobiledeploy.pipeline.build import build, load_images
    from stock import write_stock_executorch
    model = build({family!r}, weights={weights!r})
    images = load_images(model, {data!r} and Path({data!r}), {samples})
    write_stock_executorch(fold(model), images, Path({out!r}))
"""


@dataclass
class Timed:
    """A command, and what its runs took."""

    name: str
    words: list[str]
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak_mb: list[float] = field(default_factory=list)
    steps: str = ""

    def run(self) -> None:
        """Run the command once."""
        started = time.perf_counter()
        with tempfile.TemporaryFile("w+") as log:
            process = subprocess.Popen(self.words, stdout=log, stderr=log, text=True)
            _, status, usage = os.wait4(process.pid, 0)
            self.wall.append(time.perf_counter() - started)
            log.seek(0)
            self.steps = log.read()
        if status:
            raise SystemExit(f"{self.name} failed:\n{self.steps}")
        self.cpu.append(usage.ru_utime + usage.ru_stime)
        self.peak_mb.append(usage.ru_maxrss / 1000)


def commands(family: str, data: Path | None, folder: Path) -> list[Timed]:
    """Return ExecuTorch's own flow, then ours."""
    weights = "imagenet" if family == "v2" else "random"
    stock = STOCK.format(
        here=str(Path(__file__).parent),
        family=family,
        weights=weights,
        data=str(data or ""),
        samples=SAMPLES,
        out=str(folder / "stock.pte"),
    )
    images = ["--calib-data", str(data)] if data else []
    ours = [sys.executable, "-m", "mobiledeploy", "export", family, "--weights", weights, "--int8"]
    ours += ["--calib-samples", str(SAMPLES), *images, "--out", str(folder), "--allow-mismatch"]
    random = "-random" if weights == "random" else ""
    stem = f"mobilenet_{family.replace('-', '_')}_1.0_224{random}-int8"
    artifacts = [str(folder / f"{stem}{suffix}") for suffix in (".pte", ".onnx")]
    return [
        Timed("ExecuTorch's own, .pte", [sys.executable, "-c", stock]),
        Timed("balanced, .pte and .onnx", [*ours, "--format", "pte", "--format", "onnx"]),
        Timed("parity after it", [sys.executable, "-m", "mobiledeploy", "parity", *artifacts]),
        Timed("fast, .pte", [*ours, "--ptq", "fast", "--format", "pte"]),
    ]


def spread(values: list[float]) -> str:
    """Return the median and the range."""
    return f"{statistics.median(values):.1f} ({min(values):.1f}-{max(values):.1f})"


def print_rows(timed: list[Timed]) -> None:
    """Print a table with a row for each command."""
    print("| command | wall s | CPU s | peak MB | wall / ExecuTorch's own |")
    print("|---|---|---|---|---|")
    base = timed[0].wall
    for each in timed:
        ratios = [ours / own for ours, own in zip(each.wall, base, strict=True)]
        print(
            f"| {each.name} | {spread(each.wall)} | {spread(each.cpu)} |"
            f" {statistics.median(each.peak_mb):.0f} | {statistics.median(ratios):.2f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--networks", nargs="+", default=["v2", "v3-large"])
    parser.add_argument("--calib-data", type=Path)
    arguments = parser.parse_args()
    for family in arguments.networks:
        with tempfile.TemporaryDirectory() as folder:
            timed = commands(family, arguments.calib_data, Path(folder))
            for _ in range(arguments.rounds):
                for each in timed:
                    each.run()
        print(f"\n{family}, {arguments.rounds} rounds\n")
        print_rows(timed)
        print("\nSteps of the last run of the second command:\n")
        for line in re.findall(r"^ *\d+/\d+ .* s$", timed[1].steps, re.MULTILINE):
            print(f"    {line.strip()}")


if __name__ == "__main__":
    main()
