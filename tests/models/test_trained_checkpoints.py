"""Trained weights load without renaming, and the network classifies as trained."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mobiledeploy.models.build import create
from mobiledeploy.models.spec import ModelSpec
from mobiledeploy.network import Preprocessing


@pytest.fixture(scope="module")
def cifar10(shared):
    """Images (N, 3, 64, 64) prepared as the checkpoints' README says, and labels."""
    data = np.load(shared / "data" / "cifar10" / "eval.npz")
    statistics = Preprocessing()
    pixels = torch.from_numpy(data["images"]).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(s).view(3, 1, 1) for s in (statistics.mean, statistics.std))
    images = torch.nn.functional.interpolate((pixels - mean) / std, size=64, mode="bilinear")
    return images, torch.from_numpy(data["labels"])


@pytest.mark.ci
@pytest.mark.shared
@pytest.mark.parametrize(
    ("family", "width", "file", "published_top1"),
    [
        ("v1", 0.5, "mobilenet_v1_0.5_cifar10", 0.8078),
        ("v3-large", 1.0, "mobilenet_v3_large_cifar10", 0.8277),
        ("v3-small", 1.0, "mobilenet_v3_small_cifar10", 0.8108),
    ],
)
def test_a_trained_checkpoint_loads_and_classifies(
    shared, cifar10, *, family, width, file, published_top1
):
    images, labels = cifar10
    module = create(ModelSpec(family=family, width=width, resolution=64, num_classes=10))
    state = load_file(shared / "checkpoints" / f"{file}.safetensors")
    module.load_state_dict(state, strict=True)
    with torch.no_grad():
        top1 = float((module(images).argmax(1) == labels).float().mean())
    # The published figure is of 10,000 images: 1,000 of them scatter by 1.3 points (one sigma).
    assert abs(top1 - published_top1) < 0.039
