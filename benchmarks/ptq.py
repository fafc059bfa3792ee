"""Measure what each PTQ recipe costs, and what each technique contributes.

    MOBILEDEPLOY_SHARED=../shared python benchmarks/ptq.py [v2 v1 v3-small v3-large] [--swap]
    MOBILEDEPLOY_SHARED=../shared python benchmarks/ptq.py [v2 v1 v3-small v3-large] --presets
    MOBILEDEPLOY_SHARED=../shared python benchmarks/ptq.py [v2 v1 v3-small v3-large] --curve
    MOBILEDEPLOY_SHARED=../shared python benchmarks/ptq.py [v2 v1 v3-small v3-large] --copies

V2 has torchvision's ImageNet weights and is calibrated on 200 photographs. The other networks were
trained on CIFAR-10 and are calibrated on 200 of its images. All are evaluated on other images,
against the same network in float. Prints a Markdown table per network: SQNR and agreement of the
logits with their 95% intervals, top-1, seconds.

- `--swap` calibrates on evaluation images (200 of CIFAR-10's, evenly spread: they are ordered by
  class) and evaluates on the calibration images.
- `--presets` measures `fast`, `balanced` and `best` only.
- `--curve` calibrates `balanced` on 8 to 200 images.
- `--copies` evaluates `fast`, `balanced` and `best` on every image as it is, mirrored, and moved
  four ways. The six views of an image are not independent, so the intervals are too narrow.

V2 takes about twenty minutes on two cores.
"""

from mobiledeploy.utils.cpu_isa import limit_to_avx2

limit_to_avx2()  # as the commands do; before torch and numpy are loaded

# ruff: noqa: E402
import argparse
import os
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from stock import stock_executorch, stock_onnxruntime

import mobiledeploy
from mobiledeploy.graph.fold_batch_norm import fold
from mobiledeploy.metrics import sqnr_db, top1_accuracy
from mobiledeploy.network import Preprocessing
from mobiledeploy.quantization.equalize import equalize
from mobiledeploy.quantization.integer_reference import IntegerReference
from mobiledeploy.quantization.learned_equalization import learn_equalization
from mobiledeploy.quantization.ptq import quantize
from mobiledeploy.runtimes.runner import Runner
from mobiledeploy.significance import bootstrap_interval, wilson_interval
from mobiledeploy.stages import RECIPES, CalibrationSet, FoldedModel, QuantRecipe
from mobiledeploy.utils.quiet import quietly
from mobiledeploy.utils.threads import batch_slices, parallel_map

CHECKPOINTS = {
    "v1": "mobilenet_v1_0.5",
    "v3-small": "mobilenet_v3_small",
    "v3-large": "mobilenet_v3_large",
}
COUNTS = (8, 16, 32, 64, 100, 200)
Flow: TypeAlias = Callable[[FoldedModel, CalibrationSet], Runner | IntegerReference]
Row: TypeAlias = tuple[str, Flow, CalibrationSet]


def ours(recipe: QuantRecipe, *, flip_signs: bool = True) -> Flow:
    """Return this project's quantization with a recipe."""

    def flow(model: FoldedModel, images: CalibrationSet) -> IntegerReference:
        if recipe.equalization != "none":
            signs = (
                nullcontext()
                if flip_signs
                else patch("mobiledeploy.quantization.equalize._flip_signs", keep_signs)
            )
            with signs:
                model = equalize(model, images)
        if recipe.equalization == "learned":
            model = learn_equalization(model, images, thorough=recipe.rounding == "learned")
        return IntegerReference(quantize(model, images, recipe))

    return flow


def keep_signs(scales: NDArray[np.float64], *_: NDArray[np.float64]) -> NDArray[np.float64]:
    """Replace `_flip_signs`: return the scales as they are."""
    return scales


PLAIN = QuantRecipe(equalization="none", range_rule="minmax", rounding="nearest")
CROSS_LAYER = replace(PLAIN, equalization="cross-layer")
FAST, BALANCED, BEST = (RECIPES[name] for name in ("fast", "balanced", "best"))
FLOWS: dict[str, Flow] = {
    "ExecuTorch's XNNPACKQuantizer": stock_executorch,
    "ONNX Runtime's quantize_static": stock_onnxruntime,
    "min-max ranges, round to nearest": ours(PLAIN),
    "+ cross-layer equalization without sign flips": ours(CROSS_LAYER, flip_signs=False),
    "+ sign flips": ours(CROSS_LAYER),
    "+ ranges searched by their effect on the logits: **fast**": ours(FAST),
    "+ GPTQ rounding": ours(replace(BALANCED, equalization="cross-layer")),
    "+ equalization and ranges learned: **balanced**": ours(BALANCED),
    "+ weights and biases learned: **best**": ours(BEST),
    "range search alone": ours(replace(FAST, equalization="none")),
    "GPTQ rounding alone": ours(replace(PLAIN, rounding="gptq")),
    "balanced without equalization": ours(replace(BALANCED, equalization="none")),
    "best without learned equalization": ours(replace(BEST, equalization="cross-layer")),
}


@dataclass(frozen=True)
class Subject:
    """A trained network with calibration images and evaluation images.

    Attributes:
        name: Name of the model.
        model: The folded network.
        calibration: Images to quantize with.
        evaluation: Other images to measure on.
    """

    name: str
    model: FoldedModel
    calibration: CalibrationSet
    evaluation: CalibrationSet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=["v2", *CHECKPOINTS])
    parser.add_argument("--swap", action="store_true")
    parser.add_argument("--presets", action="store_true")
    parser.add_argument("--curve", action="store_true")
    parser.add_argument("--copies", action="store_true")
    arguments = parser.parse_args()
    shared = Path(os.environ["MOBILEDEPLOY_SHARED"])
    for name in arguments.models:
        subject = load_subject(name, shared, swap=arguments.swap)
        if arguments.copies:
            measure(with_copies(subject), presets(subject))
        elif arguments.presets:
            measure(subject, presets(subject))
        else:
            measure(subject, curve(subject) if arguments.curve else flows(subject))


def measure(subject: Subject, rows: Iterator[Row]) -> None:
    """Print the table of one network: a row per title, flow and calibration set."""
    exact = float_logits(subject)
    top1 = accuracy(exact, subject.evaluation.labels)
    print(f"\n### {subject.name}: {len(exact)} images, float top-1 {top1}\n")
    print("| recipe | SQNR dB | agreement | top-1 | s |\n|---|---|---|---|---|")
    evaluation = subject.evaluation.images
    for title, flow, images in rows:
        began = time.perf_counter()
        with quietly():
            network = flow(subject.model, images)
        seconds = time.perf_counter() - began
        logits = [
            network.run({"input": evaluation[batch]})["logits"]
            for batch in batch_slices(evaluation)
        ]
        row = figures(exact, np.concatenate(logits), subject.evaluation.labels)
        print(f"| {title} | {row} | {seconds:.0f} |", flush=True)


def flows(subject: Subject) -> Iterator[Row]:
    for title, flow in FLOWS.items():
        yield title, flow, subject.calibration
    bundled = mobiledeploy.load_images(subject.model, None)
    yield "balanced with the bundled images", ours(BALANCED), bundled


def presets(subject: Subject) -> Iterator[Row]:
    """Yield a row per preset of `--ptq`."""
    for title, flow in FLOWS.items():
        if "**" in title:
            yield title.partition(":")[2].strip(), flow, subject.calibration


def curve(subject: Subject) -> Iterator[Row]:
    """Yield a row of `balanced` per number of evenly spaced calibration images."""
    for count in COUNTS:
        yield f"{count} images", ours(BALANCED), subject.calibration.spread(count)


def figures(
    exact: NDArray[np.float32], logits: NDArray[np.float32], labels: tuple[int, ...] | None
) -> str:
    """Return the columns SQNR, agreement and top-1."""
    low, high = bootstrap_interval(sqnr_db, exact, logits)
    agree = int((exact.argmax(1) == logits.argmax(1)).sum())
    least, most = wilson_interval(agree, len(exact))
    return (
        f"{sqnr_db(exact, logits):.1f} ({low:.1f}-{high:.1f}) |"
        f" {agree / len(exact):.3f} ({least:.3f}-{most:.3f}) |"
        f" {accuracy(logits, labels)}"
    )


def accuracy(logits: NDArray[np.float32], labels: tuple[int, ...] | None) -> str:
    """Return top-1 accuracy; V2's calibration images, evaluated by `--swap`, have no labels."""
    return "unknown" if labels is None else f"{top1_accuracy(logits, labels):.3f}"


def with_copies(subject: Subject) -> Subject:
    """Return the subject with every evaluation image as it is, mirrored, and moved four ways."""
    images = subject.evaluation.images
    side, step = images.shape[-1], 3 * images.shape[-1] // 64
    padded = np.pad(images, ((0, 0), (0, 0), (step, step), (step, step)), mode="edge")
    moved = [
        padded[:, :, y : y + side, x : x + side]
        for y, x in ((0, step), (2 * step, step), (step, 0), (step, 2 * step))
    ]
    views = [images, images[..., ::-1], *moved]
    labels = subject.evaluation.labels
    evaluation = replace(
        subject.evaluation,
        images=np.concatenate(views),
        labels=None if labels is None else labels * len(views),
    )
    return replace(subject, evaluation=evaluation)


def float_logits(subject: Subject) -> NDArray[np.float32]:
    """Return the float network's logits of the evaluation images."""
    images = subject.evaluation.images
    logits = parallel_map(
        lambda image: subject.model.module(torch.from_numpy(image[None])).numpy(), images
    )
    return np.concatenate(list(logits))


def load_subject(name: str, shared: Path, *, swap: bool) -> Subject:
    """Build a network and load its images from the folder of measurement data."""
    if name == "v2":
        model = mobiledeploy.build("v2")
        sources = (shared / "data/imagenet-sample/calib", shared / "data/imagenet-sample/eval")
    else:
        checkpoint = shared / "checkpoints" / f"{CHECKPOINTS[name]}_cifar10.safetensors"
        model = mobiledeploy.build(
            name, weights=str(checkpoint), resolution=64, preprocessing=Preprocessing(crop_pct=1.0)
        )
        sources = (shared / "data/cifar10/calib.npz", shared / "data/cifar10/eval.npz")
    calibration, evaluation = (mobiledeploy.load_images(model, source) for source in sources)
    if swap:
        calibration, evaluation = evaluation, calibration
    return Subject(name, fold(model), calibration.spread(200), evaluation)


if __name__ == "__main__":
    main()
