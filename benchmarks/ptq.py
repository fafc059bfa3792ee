"""What post-training quantization costs: every recipe, and what each technique is worth.

    MOBILEDEPLOY_SHARED=../shared python benchmarks/ptq.py [v2 v1 v3-small v3-large] [--swap]

V2 has torchvision's ImageNet weights and is calibrated on 200 photographs, the others were trained
on CIFAR-10 and are calibrated on 200 of its images; all are measured on images that calibration has
not seen, against the same network in float. Prints a Markdown table per network: logits' SQNR and
agreement with their 95% intervals, top-1, seconds. `--swap` calibrates on the evaluation images and
measures on the others: does it tell the same story? V2 takes about twenty minutes on two cores.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray

import mobiledeploy
from mobiledeploy.equalize import equalize
from mobiledeploy.fold import fold
from mobiledeploy.parallel import in_order
from mobiledeploy.quantize import quantize
from mobiledeploy.quantize.reference import IntegerReference
from mobiledeploy.quiet import quietly
from mobiledeploy.types import (
    RECIPES,
    CalibrationSet,
    FoldedModel,
    Preprocessing,
    QuantizedModel,
    QuantRecipe,
)
from mobiledeploy.verify.metrics import bootstrap_interval, sqnr_db, wilson_interval

CHECKPOINTS = {
    "v1": "mobilenet_v1_0.5",
    "v3-small": "mobilenet_v3_small",
    "v3-large": "mobilenet_v3_large",
}
FLOWS: dict[str, Callable[[FoldedModel, CalibrationSet], QuantizedModel]] = {
    "min-max, nearest": lambda model, images: quantize(
        model, images, QuantRecipe(range_rule="minmax", rounding="nearest")
    ),
    "+ equalization, none turned round": lambda model, images: quantize(
        unturned(model, images), images, QuantRecipe(range_rule="minmax", rounding="nearest")
    ),
    "+ channels turned round": lambda model, images: quantize(
        equalize(model, images), images, QuantRecipe(range_rule="minmax", rounding="nearest")
    ),
    "+ ranges by the logits (fast)": lambda model, images: quantize(
        equalize(model, images), images, RECIPES["fast"]
    ),
    "+ cancelling rounding (balanced)": lambda model, images: quantize(
        equalize(model, images), images, RECIPES["balanced"]
    ),
    "+ learned (best)": lambda model, images: quantize(
        equalize(model, images), images, RECIPES["best"]
    ),
    "balanced without equalization": lambda model, images: quantize(
        model, images, RECIPES["balanced"]
    ),
}


@dataclass(frozen=True)
class Subject:
    """A trained network, images to calibrate it with, and others to measure it on."""

    name: str
    model: FoldedModel
    calibration: CalibrationSet
    evaluation: CalibrationSet
    truth: NDArray[np.int64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=["v2", *CHECKPOINTS])
    parser.add_argument("--swap", action="store_true")
    arguments = parser.parse_args()
    shared = Path(os.environ["MOBILEDEPLOY_SHARED"])
    for name in arguments.models:
        measure(subject(name, shared, swap=arguments.swap))


def measure(subject: Subject) -> None:
    """Print the table of one network."""
    exact = float_logits(subject)
    top1 = (exact.argmax(1) == subject.truth).mean()
    print(f"\n### {subject.name}: {len(exact)} images, float top-1 {top1:.3f}\n")
    print("| recipe | SQNR dB | agreement | top-1 | s |\n|---|---|---|---|---|")
    for title, make, images in flows(subject):
        began = time.perf_counter()
        with quietly():
            quantized = make(subject.model, images)
        seconds = time.perf_counter() - began
        run = IntegerReference(quantized).run
        logits = [run({"input": batch})["logits"] for batch in subject.evaluation.batches]
        row = figures(exact, np.concatenate(logits), subject.truth)
        print(f"| {title} | {row} | {seconds:.0f} |", flush=True)


def flows(subject: Subject) -> Iterator[tuple[str, Callable[..., QuantizedModel], CalibrationSet]]:
    for title, make in FLOWS.items():
        yield title, make, subject.calibration
    embedded = mobiledeploy.load_images(subject.model, None)
    yield "balanced, embedded images", FLOWS["+ cancelling rounding (balanced)"], embedded


def figures(
    exact: NDArray[np.float32], logits: NDArray[np.float32], truth: NDArray[np.int64]
) -> str:
    low, high = bootstrap_interval(sqnr_db, exact, logits)
    agree = int((exact.argmax(1) == logits.argmax(1)).sum())
    least, most = wilson_interval(agree, len(exact))
    return (
        f"{sqnr_db(exact, logits):.1f} ({low:.1f}-{high:.1f}) |"
        f" {agree / len(exact):.3f} ({least:.3f}-{most:.3f}) |"
        f" {(logits.argmax(1) == truth).mean():.3f}"
    )


def unturned(model: FoldedModel, images: CalibrationSet) -> FoldedModel:
    """Equalize, but leave every channel's sign."""
    with patch("mobiledeploy.equalize._turned", lambda factors, *_: factors):
        return equalize(model, images)


def float_logits(subject: Subject) -> NDArray[np.float32]:
    images = np.concatenate(subject.evaluation.batches)
    logits = in_order(
        lambda image: subject.model.module(torch.from_numpy(image[None])).numpy(), images
    )
    return np.concatenate(list(logits))


def subject(name: str, shared: Path, *, swap: bool) -> Subject:
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
    return Subject(
        name, fold(model), first(calibration, 200), evaluation, np.array(evaluation.labels)
    )


def first(images: CalibrationSet, count: int) -> CalibrationSet:
    few = np.concatenate(images.batches)[:count]
    return replace(images, batches=tuple(np.array_split(few, max(1, count // 16))), labels=None)


if __name__ == "__main__":
    main()
