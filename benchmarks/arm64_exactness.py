"""Count the logits in which ARM64 differs from the integer reference, for full-size networks.

    scripts/arm64-root FOLDER
    python benchmarks/arm64_exactness.py FOLDER --data IMAGES [--images 16]

Exports five int8 networks with random weights. Runs each with the integer reference on this
machine, and with ONNX Runtime under QEMU, which emulates three ARM processors: NEON, dot products,
matrix products. Takes about ten minutes on two cores.
"""

from mobiledeploy.utils.cpu_isa import limit_to_avx2

limit_to_avx2()  # as the commands do; before torch and numpy are loaded

# ruff: noqa: E402
import argparse
import tempfile
from pathlib import Path

import numpy as np

from mobiledeploy.devices.agent_session import decode_outputs
from mobiledeploy.devices.open import open_device
from mobiledeploy.devices.request import Request
from mobiledeploy.pipeline.build import build, load_images
from mobiledeploy.pipeline.deploy import deploy
from mobiledeploy.quantization.integer_reference import IntegerReference
from mobiledeploy.utils.quiet import quietly

NETWORKS = (
    ("v1", 1.0, 224),
    ("v2", 1.0, 224),
    ("v3-small", 1.0, 224),
    ("v3-small", 1.0, 64),
    ("v3-large", 1.0, 224),
)
PROCESSORS = ("cortex-a53", "cortex-a76", "max")
QEMU = "exec:qemu-aarch64 -cpu {processor} -L {root} {root}/usr/bin/python3"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--data", type=Path, help="a folder of images; embedded ones by default")
    parser.add_argument("--images", type=int, default=16)
    arguments = parser.parse_args()
    print("| network | logits compared |", " | ".join(PROCESSORS), "|")
    print("|---|---|" + "---|" * len(PROCESSORS))
    for family, width, resolution in NETWORKS:
        with tempfile.TemporaryDirectory() as folder, quietly():
            path, inputs, expected = export(
                family, width, resolution, arguments.data, arguments.images, Path(folder)
            )
            request = Request(task="outputs", artifacts=(path,), inputs=(inputs,))
            differing = []
            for processor in PROCESSORS:
                uri = QEMU.format(processor=processor, root=arguments.root.resolve())
                with open_device(uri, timeout_s=3600) as device:
                    *_, last = device.run_session(request)
                differing.append(
                    np.count_nonzero(decode_outputs(last["result"]["outputs"])[0][0] != expected)
                )
        cells = " | ".join(str(count) for count in differing)
        print(f"| {family} {width}-{resolution} | {expected.size:,} | {cells} |", flush=True)


def export(
    family: str, width: float, resolution: int, data: Path | None, count: int, folder: Path
) -> tuple[Path, np.ndarray, np.ndarray]:
    """Export an int8 ONNX; return its path, images, and the logits of the integer reference."""
    model = build(family, weights="random", width=width, resolution=resolution)
    images = load_images(model, data, None if data is None else max(count, 32))
    deployed = deploy(model, formats=["onnx"], calibration=images, out=folder, parity=False)
    inputs = images.images[:count]
    parts = np.array_split(inputs, max(1, count // 4))
    reference = IntegerReference(deployed.model)
    logits = np.concatenate([reference.run({"input": part})["logits"] for part in parts])
    return deployed.artifacts[0].path, inputs, logits


if __name__ == "__main__":
    main()
