"""Count instructions per inference on ARM64: our int8 artifacts against the stock quantizers'.

    mobiledeploy device setup exec:qemu-aarch64
    python benchmarks/arm64_instructions.py OUT [--processor cortex-a76] [--data IMAGES]

Exports four networks with random weights as .pte and .onnx into OUT, quantizes the same folded
networks with ExecuTorch's and ONNX Runtime's own quantizers, and counts all with the native runner
under QEMU. The outputs of each are compared with this machine's. Files in OUT are used again.
"""

from mobiledeploy.utils.cpu_isa import limit_to_avx2

limit_to_avx2()  # as the commands do; before torch and numpy are loaded

# ruff: noqa: E402
import argparse
from pathlib import Path

from stock import write_stock_executorch, write_stock_onnxruntime

import mobiledeploy
from mobiledeploy.bench.instructions import count_instructions
from mobiledeploy.devices.open import open_device
from mobiledeploy.utils.quiet import quietly

FAMILIES = ("v1", "v2", "v3-small", "v3-large")
STOCK_IMAGES = 8  # random weights: the count does not depend on the ranges


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--processor", default="cortex-a76")
    parser.add_argument("--data", type=Path, help="a folder of images; embedded ones by default")
    arguments = parser.parse_args()
    print("| network | runtime | ours | stock | ours / stock | outputs that differ from x86-64 |")
    print("|---|---|---|---|---|---|")
    for family in FAMILIES:
        with quietly():
            pairs = export(family, arguments.out / family, arguments.data)
        uri = f"exec:qemu-aarch64 -cpu {arguments.processor}"
        for pair in pairs:
            with open_device(uri, timeout_s=3600, counts_instructions=True) as device:
                ours, stock = count_instructions(pair, device=device, runs=3, warmup=2)
            medians = [each.median_instructions for each in (ours, stock)]
            compared = [each.outputs for each in (ours, stock) if each.outputs is not None]
            cells = (
                family,
                ours.runtime,
                *(f"{median:,.0f}" for median in medians),
                f"{medians[0] / medians[1]:.3f}",
                " / ".join(f"{outputs.differing} of {outputs.values:,}" for outputs in compared),
            )
            print("|", " | ".join(cells), "|", flush=True)


def export(family: str, out: Path, data: Path | None) -> list[tuple[Path, Path]]:
    """Return the paths of our and the stock artifact, for .onnx and .pte; export missing ones."""
    stock = {suffix: out / f"stock{suffix}" for suffix in (".onnx", ".pte")}
    ours = {path.suffix: path for path in out.glob("mobilenet*-int8.*") if path.suffix in stock}
    if len(ours) < len(stock) or not all(path.exists() for path in stock.values()):
        model = mobiledeploy.build(family, weights="random")
        images = mobiledeploy.load_images(model, data)
        deployed = mobiledeploy.deploy(
            model, formats=["pte", "onnx"], calibration=images, out=out, parity=False
        )
        ours = {artifact.path.suffix: artifact.path for artifact in deployed.artifacts}
        folded = mobiledeploy.fold(model)
        few = images.spread(min(STOCK_IMAGES, len(images.images)))
        write_stock_executorch(folded, few, stock[".pte"])
        write_stock_onnxruntime(folded, few, stock[".onnx"])
    return [(ours[suffix], stock[suffix]) for suffix in stock]


if __name__ == "__main__":
    main()
