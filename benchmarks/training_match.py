"""Which mistakes does the training match catch, and does it name the cause?

    MOBILEDEPLOY_SHARED=PATH python benchmarks/training_match.py [v1] [v3-small] [v2]

Every mistake is planted in a trained network or its input. It is caught if the network is refused
or warned of, and named if the cause is among the two that are named. It counts if the network with
it agrees with the right one on fewer than 0.9 of the images. Sound networks are those without a
mistake, on the images of training, on few of its classes, on eight images, on another data set and
on the bundled images. Takes 2 to 30 minutes per network.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from mobiledeploy.models.blocks import SamePaddingConv2d
from mobiledeploy.pipeline.build import build, load_images
from mobiledeploy.pipeline.check_training_match import check_training_match
from mobiledeploy.stages import CalibrationSet, FloatModel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mobiledeploy.training_match.verdict import TrainingMatch

CHECKPOINTS = {
    "v1": "mobilenet_v1_0.5_cifar10",
    "v3-small": "mobilenet_v3_small_cifar10",
    "v3-large": "mobilenet_v3_large_cifar10",
}
NORMALISATIONS = {
    "mean/std 0.5": ((0.5,) * 3, (0.5,) * 3),
    "[0, 1]": ((0.0,) * 3, (1.0,) * 3),
    "0-255": ((0.0,) * 3, (1 / 255,) * 3),
}
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.Hardswish)


@dataclass(frozen=True)
class Mistake:
    """A network or an input with a mistake, and the cause that should be named."""

    name: str
    cause: str
    model: FloatModel
    images: CalibrationSet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", default=["v1", "v3-small", "v2"])
    shared = Path(os.environ["MOBILEDEPLOY_SHARED"])
    torch.set_num_threads(1)
    print("| network | mistake | agreement | distance | verdict | named |")
    print("|---|---|---|---|---|---|")
    for name in parser.parse_args().networks:
        report(name, shared)


def report(name: str, shared: Path) -> None:
    """Print one row per mistake and per sound set, and the two rates."""
    photographs = shared / "data/imagenet-sample/calib"
    pictures = shared / "data/cifar10/calib.npz"
    source, other = (photographs, pictures) if name == "v2" else (pictures, photographs)

    def load(resolution: int) -> FloatModel:
        if name == "v2":
            return build("v2", resolution=resolution)
        weights = shared / f"checkpoints/{CHECKPOINTS[name]}.safetensors"
        return build(name, weights=str(weights), resolution=resolution)

    right = load(224 if name == "v2" else 64)
    images = load_images(right, source, 64)
    expected = classes_of(right, images)
    caught = named = counted = 0
    for mistake in mistakes(right, load, source, images):
        if name == "v2" and mistake.name == "all strides 1":
            continue  # at 224 pixels it takes hours
        match = check_training_match(mistake.model, mistake.images, allow_mismatch=True)
        agreement = float((classes_of(mistake.model, mistake.images) == expected).mean())
        is_named = mistake.cause in [cause.name for cause in match.causes]
        print(
            f"| {name} | {mistake.name} | {agreement:.2f} | {match.distance:.2f} |"
            f" {verdict(match)} | {'yes' if is_named else 'no'} |",
            flush=True,
        )
        if agreement < 0.9:
            counted += 1
            caught += match.is_mismatch or match.is_doubtful
            named += is_named
    alarms = 0
    for label, given in sound_sets(right, source, other).items():
        match = check_training_match(right, given, allow_mismatch=True)
        alarms += match.is_mismatch
        print(f"| {name} | none: {label} | | {match.distance:.2f} | {verdict(match)} | |")
    print(f"{name}: caught {caught} of {counted}, named {named}; false alarms {alarms}", flush=True)


def verdict(match: TrainingMatch) -> str:
    if match.is_mismatch:
        return "refused"
    return "warned" if match.is_doubtful else "silent"


def mistakes(right: FloatModel, load, source: Path, images: CalibrationSet) -> Iterator[Mistake]:  # noqa: ANN001
    """Yield every mistake."""
    usual = right.info.preprocessing
    pixels = images.images * per_channel(usual.std) + per_channel(usual.mean)
    for label, (mean, std) in NORMALISATIONS.items():
        info = replace(
            right.info,
            input=replace(right.info.input, preprocessing=replace(usual, mean=mean, std=std)),
        )
        wrong = ((pixels - per_channel(mean)) / per_channel(std)).astype(np.float32)
        given = replace(images, images=wrong)
        yield Mistake(label, "the normalisation", replace(right, info=info), given)
    half = load(right.info.input.height // 2)
    yield Mistake("resolution halved", "the resolution", half, load_images(half, source, 64))
    edits = {
        "stem stride 1": ("the strides", first_stride_one),
        "all strides 1": ("the strides", all_strides_one),
        "SAME padding": ("the padding", same_padding),
        "eps 1e-2": ("BatchNorm's epsilon", lambda layer, _: set_eps(layer, 1e-2)),
        "ReLU": ("the activation", None),
        "hard-swish": ("the activation", None),
    }
    for label, (cause, edit) in edits.items():
        model = load(right.info.input.height)
        if edit is None:
            set_activations(model.module, nn.ReLU if label == "ReLU" else nn.Hardswish)
        else:
            for index, layer in enumerate(
                layer for layer in model.module.modules() if isinstance(layer, LAYERS)
            ):
                edit(layer, index)
        yield Mistake(label, cause, model, images)


LAYERS = (nn.Conv2d, nn.BatchNorm2d)


def first_stride_one(layer: nn.Module, index: int) -> None:
    if index == 0:
        layer.stride = (1, 1)


def all_strides_one(layer: nn.Module, _: int) -> None:
    if isinstance(layer, nn.Conv2d):
        layer.stride = (1, 1)


def same_padding(layer: nn.Module, _: int) -> None:
    if isinstance(layer, nn.Conv2d) and layer.kernel_size[0] > 1:
        layer.__class__ = SamePaddingConv2d


def set_eps(layer: nn.Module, eps: float) -> None:
    if isinstance(layer, nn.BatchNorm2d):
        layer.eps = eps


def set_activations(module: nn.Module, kind: type[nn.Module]) -> None:
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, ACTIVATIONS):
                setattr(parent, name, kind())


def sound_sets(right: FloatModel, source: Path, other: Path) -> dict[str, CalibrationSet]:
    """Return images on which the right network must not be doubted, by name."""
    every = load_images(right, source)
    sets = {
        "training-like": every,
        "eight images": every.spread(8),
        "bundled images": load_images(right, None),
        "another data set": load_images(right, other, 64),
    }
    if every.labels is not None:
        labels = np.array(every.labels)
        for count in (1, 2, 3):
            chosen = every.images[labels < count]
            sets[f"{count} of 10 classes"] = replace(every, images=chosen)
    return sets


def classes_of(model: FloatModel, images: CalibrationSet) -> np.ndarray:
    with torch.no_grad():
        batches = np.array_split(images.images, 8)
        logits = [model.module(torch.from_numpy(batch)).numpy() for batch in batches]
    return np.concatenate(logits).argmax(1)


def per_channel(values: tuple[float, ...]) -> np.ndarray:
    return np.array(values, np.float32)[:, None, None]


if __name__ == "__main__":
    main()
