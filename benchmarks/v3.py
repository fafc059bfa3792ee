"""Time int8 MobileNets at 1.0-224 against the runtimes' own int8 and float artifacts.

    python benchmarks/v3.py build FOLDER [FAMILY...]
    python benchmarks/v3.py time FOLDER [FAMILY...] [--rounds 150]

`build` writes our .onnx and .pte of each family, and the four artifacts of the scripts in
$MOBILEDEPLOY_SHARED/peers (int8 and float, for each runtime), all with the same random weights: the
time of an inference does not depend on them. Existing files are kept. A family takes some minutes.
`time` measures the six artifacts of each family against one another on one thread, in one run, with
the protocol of `mobiledeploy bench`, and prints a Markdown table. It takes 20 s per family.
"""

from mobiledeploy.utils.cpu_isa import limit_to_avx2

limit_to_avx2()  # as the commands do; before torch and numpy are loaded

# ruff: noqa: E402
import argparse
import os
import subprocess
import sys
from pathlib import Path

from mobiledeploy.bench.measure import measure
from mobiledeploy.bench.stats import paired_ratio
from mobiledeploy.pipeline import build as stages
from mobiledeploy.pipeline.deploy import deploy
from mobiledeploy.utils.quiet import quietly

FAMILIES = ("v3-small", "v3-large", "v2", "v1")
OURS = ("onnx", "pte")
# Compared with our artifact of the same suffix: label, script, options.
PEERS = {
    "onnx": (
        ("ONNX Runtime's own int8", "ort_static.py", ()),
        ("float", "ort_static.py", ("--fp32",)),
    ),
    "pte": (
        ("ExecuTorch's own int8", "stock_xnnpack.py", ()),
        ("float", "stock_xnnpack.py", ("--fp32",)),
    ),
}
CALIBRATION_IMAGES = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("build", "time"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("families", nargs="*", default=FAMILIES, metavar="FAMILY")
    parser.add_argument("--rounds", type=int, default=150)
    arguments = parser.parse_args()
    if arguments.action == "build":
        arguments.folder.mkdir(parents=True, exist_ok=True)
        for family in arguments.families:
            build(family, arguments.folder)
        return
    print("| network | artifact | median ms (IQR) | / own int8 | / float |")
    print("|---|---|---|---|---|")
    for family in arguments.families:
        for row in compare(family, arguments.folder, arguments.rounds):
            print(f"| {family} | {' | '.join(row)} |", flush=True)


def ours(family: str, folder: Path, format_: str) -> Path:
    return folder / f"mobilenet_{family.replace('-', '_')}_1.0_224-random-int8.{format_}"


def peer(family: str, folder: Path, format_: str, options: tuple[str, ...]) -> Path:
    precision = "float" if options else "int8"
    return folder / f"{family}-stock-{precision}.{format_}"


def build(family: str, folder: Path) -> None:
    """Write those of a family's six artifacts that do not exist."""
    shared = Path(os.environ["MOBILEDEPLOY_SHARED"])
    if not all(ours(family, folder, format_).exists() for format_ in OURS):
        with quietly():
            model = stages.build(family, weights="random")
            images = stages.load_images(
                model, shared / "data/imagenet-sample/calib", 2 * CALIBRATION_IMAGES
            )
            deploy(model, formats=OURS, calibration=images, out=folder, parity=False)
    for format_, peers in PEERS.items():
        for _, script, options in peers:
            path = peer(family, folder, format_, options)
            if not path.exists():
                command = [sys.executable, str(shared / "peers" / script), family, *options]
                command += ["--weights", "random", "--samples", str(CALIBRATION_IMAGES)]
                command += ["--calib", str(shared / "data/imagenet-sample/calib")]
                subprocess.run([*command, "--out", str(path)], check=True)


def compare(family: str, folder: Path, rounds: int) -> list[tuple[str, ...]]:
    """Measure a family in one run; return a row for each artifact, ours before its peers."""
    paths, labels = [], []
    for format_, peers in PEERS.items():
        paths.append(ours(family, folder, format_))
        labels.append(f"**mobiledeploy `.{format_}`**")
        for label, _, options in peers:
            paths.append(peer(family, folder, format_, options))
            labels.append(label)
    measured = measure(paths, runs=rounds)
    rows = []
    for index, (label, measurement) in enumerate(zip(labels, measured, strict=True)):
        ratios = ("", "")
        if index % 3 == 0:
            mine, *others = measured[index : index + 3]
            ratios = tuple(f"{paired_ratio(other, mine).median:.3f}" for other in others)
        time = f"{measurement.median_ms:.2f} ({measurement.iqr_ms:.2f})"
        rows.append((label, time, *ratios))
    return rows


if __name__ == "__main__":
    main()
