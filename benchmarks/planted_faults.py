"""Plant faults into an int8 network: what each costs in accuracy, and which rung finds it.

    python benchmarks/planted_faults.py exports/mobilenet_v2_1.0_224-int8.onnx --data IMAGES

The artifact comes from `mobiledeploy export --int8 --format onnx`. Each fault of tests/planted.py
is planted into a copy. Prints a Markdown table: SQNR and agreement with float; how many logits
differ from those of the unchanged artifact; and, for the parity ladder on 16 of the images, the
lowest rung that fails and the layer that it names.
"""

from mobiledeploy.utils.cpu_isa import limit_to_avx2

limit_to_avx2()  # as the commands do; before torch and numpy are loaded

# ruff: noqa: E402
import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import mobiledeploy
from mobiledeploy.artifact.manifest import read_manifest
from mobiledeploy.network import INPUT_NAME, OUTPUT_NAME
from mobiledeploy.parity.compare import compare_logits
from mobiledeploy.parity.run_ladder import run_ladder
from mobiledeploy.pipeline.rebuild import rebuild
from mobiledeploy.runtimes.open import open_runner
from mobiledeploy.runtimes.pytorch import EagerRunner
from mobiledeploy.runtimes.runner import Runner

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import planted

FAULTS = {
    "none": lambda _: None,
    "one weight of convolution 30, by 1": planted.perturbed_weight(30),
    "zero-point of activation 3, by 1": planted.shifted_zero_point(3),
    "zero-point of activation 40, by 1": planted.shifted_zero_point(40),
    "two channels of convolution 1 swapped": planted.swapped_channels(1),
    "two channels of convolution 9 swapped": planted.swapped_channels(9),
    "two channels of convolution 30 swapped": planted.swapped_channels(30),
    "takes BGR": planted.takes_bgr,
    "scale of the logits is NaN": planted.not_a_number,
}
LADDER_IMAGES = 16

Images = NDArray[np.float32]


def run(runner: Runner, images: Images) -> NDArray[np.float32]:
    batches = np.array_split(images, max(1, len(images) // 4))
    return np.concatenate([runner.run({INPUT_NAME: batch})[OUTPUT_NAME] for batch in batches])


def run_file(artifact: Path, images: Images) -> NDArray[np.float32]:
    with open_runner(artifact) as runner:
        return run(runner, images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    networks = rebuild(read_manifest(arguments.artifact))
    data = mobiledeploy.load_images(networks.folded, arguments.data)
    images = data.images
    few = replace(data, images=images[:: len(images) // LADDER_IMAGES], labels=None)
    reference = run(EagerRunner(networks.original.module), images)
    unchanged = run_file(arguments.artifact, images)
    print("| fault | SQNR, dB | agreement | logits that differ | fails at | layer named |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, fault in FAULTS.items():
            path = planted.plant(arguments.artifact, Path(folder) / "faulty.onnx", fault)
            logits = run_file(path, images)
            cells = ["", ""]
            if np.isfinite(logits).all():
                loss = compare_logits(reference, logits)
                cells = [f"{loss['sqnr_db']:.1f}", f"{loss['top1_agreement']:.3f}"]
            cells.append(f"{np.count_nonzero(logits != unchanged):,}")
            failed = run_ladder(networks, [path], few).first_failed_rung
            found = (f"`{failed.name}`", failed.first_differing_layer) if failed else ("", "")
            cells += found
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
