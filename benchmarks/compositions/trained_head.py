"""Train an MLP head on CIFAR-10 features and measure what int8 costs it.

    MOBILEDEPLOY_SHARED=... python benchmarks/compositions/trained_head.py

Takes V3-Small trained on CIFAR-10, keeps its features, and trains a new head, linear 64, ReLU,
linear 10, on every second of the 1,000 evaluation images. Quantizes the whole network on the 200
calibration images with two presets, and counts correct answers on the other 500. Takes about five
minutes on two cores.
"""

from mobiledeploy.utils.cpu_isa import limit_to_avx2

limit_to_avx2()  # as the commands do; before torch and numpy are loaded

# ruff: noqa: E402
import os
from pathlib import Path

import numpy as np
import torch
from torch import nn

import mobiledeploy
from mobiledeploy.graph.fold_graph import fold_graph
from mobiledeploy.pipeline.build import build, load_images
from mobiledeploy.quantization.equalize import equalize
from mobiledeploy.quantization.integer_reference import IntegerReference
from mobiledeploy.quantization.learned_equalization import learn_equalization
from mobiledeploy.quantization.ptq import quantize
from mobiledeploy.significance import mean_interval, sign_test
from mobiledeploy.stages import RECIPES, CalibrationSet, FloatModel, FoldedModel
from mobiledeploy.utils.quiet import quietly

SHARED = Path(os.environ["MOBILEDEPLOY_SHARED"])
RESOLUTION = 64
STEPS = 300


def main() -> None:
    """Print a row per preset."""
    torch.manual_seed(0)
    weights = SHARED / "checkpoints" / "mobilenet_v3_small_cifar10.safetensors"
    base = build("v3-small", weights=str(weights), resolution=RESOLUTION, num_classes=10)
    images, calibration = (
        load_images(base, SHARED / "data" / "cifar10" / name) for name in ("eval.npz", "calib.npz")
    )
    model = with_trained_head(base, images)
    held_out = np.ascontiguousarray(images.images[1::2])  # they are sorted by class
    labels = np.array(images.labels)[1::2]
    with torch.no_grad():
        exact = model.module(torch.from_numpy(held_out)).argmax(1).numpy() == labels
    print("| preset | float top-1 | int8 top-1 | lost, in points | 95% interval | p |")
    print("|---|---|---|---|---|---|")
    for preset in ("fast", "balanced"):
        with quietly():
            int8 = quantize(
                equalized(fold_graph(model), calibration, preset), calibration, RECIPES[preset]
            )
        (logits,) = IntegerReference(int8).run({"input": held_out}).values()
        found = logits.argmax(1) == labels
        lost = 100 * (exact.astype(float) - found)
        low, high = mean_interval(lost)
        p = sign_test(int((exact & ~found).sum()), int((found & ~exact).sum()))
        shares = f"{exact.mean():.1%} | {found.mean():.1%}"
        print(f"| {preset} | {shares} | {lost.mean():.1f} | {low:.1f} to {high:.1f} | {p:.2f} |")


def with_trained_head(base: FloatModel, images: CalibrationSet) -> FloatModel:
    """Return the network with a new head that is trained on every second image."""
    network = base.module
    features = nn.Sequential(network.features, network.avgpool, nn.Flatten())
    with torch.no_grad():
        inputs = features(torch.from_numpy(np.ascontiguousarray(images.images[::2])))
    targets = torch.tensor(images.labels[::2])
    head = nn.Sequential(nn.Linear(inputs.shape[1], 64), nn.ReLU(), nn.Linear(64, 10))
    adam = torch.optim.Adam(head.parameters(), lr=1e-3, weight_decay=1e-3)
    for _ in range(STEPS):
        adam.zero_grad()
        nn.functional.cross_entropy(head(inputs), targets).backward()
        adam.step()
    module = nn.Sequential(features, head)
    shape = (3, RESOLUTION, RESOLUTION)
    return mobiledeploy.from_module(
        module, input_shape=shape, preprocessing=base.info.preprocessing
    )


def equalized(model: FoldedModel, calibration: CalibrationSet, preset: str) -> FoldedModel:
    """Return the network equalized as a preset asks for."""
    if RECIPES[preset].equalization == "learned":
        return learn_equalization(equalize(model, calibration), calibration)
    return equalize(model, calibration)


if __name__ == "__main__":
    main()
