"""Count ARM64 instructions from bytes to logits: networks of pixels against networks of float.

    mobiledeploy device setup exec:qemu-aarch64
    python benchmarks/pixel_instructions.py OUT [--processor cortex-a76]

Exports four networks with random weights and each input into OUT, as .onnx and .pte, and counts
them with the native runner under QEMU. An app that has a network of float normalises the frame
first: that loop (`normalise_frame.cpp`) is compiled for ARM64 with -O2 and -O3 and counted too.
Files in OUT are used again.
"""

from mobiledeploy.utils.cpu_isa import limit_to_avx2

limit_to_avx2()  # as the commands do; before torch and numpy are loaded

# ruff: noqa: E402
import argparse
import os
import subprocess
import tempfile
from pathlib import Path

import mobiledeploy
from mobiledeploy.bench.instructions import count_instructions
from mobiledeploy.devices.open import open_device
from mobiledeploy.devices.qemu import plugin
from mobiledeploy.stages import RECIPES
from mobiledeploy.utils.quiet import quietly

FAMILIES = ("v1", "v2", "v3-small", "v3-large")
INPUTS = ("rgba-u8", "rgba-u8-nchw", "float")
IMAGES = 8  # random weights: the count does not depend on the ranges
COMPILER = "aarch64-linux-gnu-g++-12"
SOURCE = Path(__file__).with_name("normalise_frame.cpp")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--processor", default="cortex-a76")
    arguments = parser.parse_args()
    loops = {level: normalising(arguments.processor, level) for level in ("-O2", "-O3")}
    print(f"normalising one frame: {', '.join(f'{k} {v:,}' for k, v in loops.items())}")
    loop = min(loops.values())
    names = ["network", "runtime", *INPUTS]
    names += [f"{name} / {other}" for other in ("float", "(loop + float)") for name in INPUTS[:-1]]
    print("|", " | ".join(names), "|")
    print("|---" * len(names) + "|")
    for family in FAMILIES:
        with quietly():
            formats = export(family, arguments.out / family)
        for artifacts in formats:
            uri = f"exec:qemu-aarch64 -cpu {arguments.processor}"
            with open_device(uri, timeout_s=3600, counts_instructions=True) as device:
                counts = count_instructions(artifacts, device=device, runs=3, warmup=2)
            assert all(each.outputs.differing == 0 for each in counts), "outputs differ"
            *pixels, alone = (each.median_instructions for each in counts)
            ratios = [each / total for total in (alone, alone + loop) for each in pixels]
            cells = (
                *(family, counts[0].runtime),
                *(f"{each:,.0f}" for each in (*pixels, alone)),
                *(f"{ratio:.3f}" for ratio in ratios),
            )
            print("|", " | ".join(cells), "|", flush=True)


def normalising(processor: str, level: str) -> int:
    """Return the instructions of the loop that normalises a frame, as g++ compiles it."""
    with tempfile.TemporaryDirectory() as folder:
        program = f"{folder}/normalise"
        subprocess.run([COMPILER, level, "-static", str(SOURCE), "-o", program], check=True)
        done = subprocess.run(
            ["qemu-aarch64", "-cpu", processor, program],
            env=os.environ | plugin.environment(),
            capture_output=True,
            text=True,
            check=True,
        )
    return int(done.stdout.split()[0])


def export(family: str, out: Path) -> list[tuple[Path, ...]]:
    """Return the artifacts of pixels and of float, for .onnx and .pte; export missing ones."""
    found = {}
    for name in INPUTS:
        folder = out / name
        suffixes = {path.suffix: path for path in folder.glob("*-int8.*")}
        if not {".onnx", ".pte"} <= set(suffixes):
            model = mobiledeploy.build(family, weights="random", input=name)
            deployed = mobiledeploy.deploy(
                model,
                formats=["onnx", "pte"],
                calibration=mobiledeploy.load_images(model, None).spread(IMAGES),
                recipe=RECIPES["fast"],
                out=folder,
                parity=False,
            )
            suffixes = {each.path.suffix: each.path for each in deployed.artifacts}
        found[name] = suffixes
    return [tuple(found[name][suffix] for name in INPUTS) for suffix in (".onnx", ".pte")]


if __name__ == "__main__":
    main()
