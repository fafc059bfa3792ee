"""Warnings about calibration sets: real networks, real images, and common mistakes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import mobiledeploy
from mobiledeploy.data.sanity_checks import warnings_for
from mobiledeploy.network import Preprocessing
from mobiledeploy.stages import CalibrationSet

FILES = {
    "v1": "mobilenet_v1_0.5_cifar10",
    "v3-small": "mobilenet_v3_small_cifar10",
    "v3-large": "mobilenet_v3_large_cifar10",
}


@pytest.fixture(params=FILES, scope="module")
def model(request, shared):
    checkpoint = shared / "checkpoints" / f"{FILES[request.param]}.safetensors"
    preprocessing = Preprocessing(crop_pct=1.0)
    return mobiledeploy.build(
        request.param, weights=str(checkpoint), resolution=64, preprocessing=preprocessing
    )


@pytest.fixture(scope="module")
def pixels(shared):
    """(128, 3, 64, 64), in [0, 1]."""
    with np.load(shared / "data" / "cifar10" / "calib.npz") as data:
        small = torch.from_numpy(data["images"][:128]).permute(0, 3, 1, 2) / 255
    return torch.nn.functional.interpolate(small, size=64, mode="bilinear").numpy()


def normalised(pixels):
    statistics = Preprocessing()
    mean, std = (np.array(s, np.float32)[:, None, None] for s in (statistics.mean, statistics.std))
    return (pixels - mean) / std


def set_of(images) -> CalibrationSet:
    return CalibrationSet(
        images=np.ascontiguousarray(images, np.float32), source="", sha256="", labels=None
    )


@pytest.mark.shared
def test_correct_images_give_no_warning(model, pixels):
    assert warnings_for(model, set_of(normalised(pixels))) == ()


@pytest.mark.shared
def test_wrong_preprocessing_is_left_to_the_training_match(model, pixels):
    """Otherwise the images would also be said to be of few classes, or BGR."""
    for wrong in (pixels, pixels * 255, normalised(normalised(pixels))):
        assert warnings_for(model, set_of(wrong)) == ()


@pytest.mark.shared
def test_nothing_but_copies_is_left_to_the_pipeline(model, pixels):
    copies = normalised(np.repeat(pixels[:1], 40, axis=0))
    assert not any("copies" in text for text in warnings_for(model, set_of(copies)))


@pytest.mark.shared
def test_swapped_channels_are_reported(model, pixels):
    (found,) = warnings_for(model, set_of(normalised(pixels[:, ::-1])))
    assert "red and blue swapped" in found


@pytest.fixture(scope="module")
def by_class(shared):
    """Normalised images of CIFAR-10 by their class, each (n, 3, 64, 64)."""
    with np.load(shared / "data" / "cifar10" / "eval.npz") as data:
        images, labels = data["images"], data["labels"]
    few = [torch.from_numpy(images[labels == label][:40]) for label in range(10)]
    small = [images.permute(0, 3, 1, 2) / 255 for images in few]
    resized = [torch.nn.functional.interpolate(x, size=64, mode="bilinear") for x in small]
    return [normalised(x.numpy()) for x in resized]


@pytest.mark.shared
@pytest.mark.parametrize("classes", [(0, 1), (7, 2), (4, 5)])
def test_images_of_few_classes_are_reported(model, by_class, classes):
    (found,) = warnings_for(model, set_of(np.concatenate([by_class[label] for label in classes])))
    assert "of few of the network's classes" in found


@pytest.mark.shared
@pytest.mark.parametrize("each", [4, 10, 40])
def test_balanced_classes_give_no_warning(model, by_class, each):
    every = np.concatenate([images[:each] for images in by_class])  # one class after the other
    assert warnings_for(model, set_of(every)) == ()


@pytest.mark.shared
def test_few_images_are_not_reported_as_few_classes(model, pixels):
    (found,) = warnings_for(model, set_of(normalised(pixels[:4])))  # a few scatter more
    assert found.startswith("4 calibration images are few")


@pytest.mark.shared
def test_few_images_and_copies_are_counted(model, pixels):
    x = normalised(pixels)
    (few,) = warnings_for(model, set_of(x[:31]))
    assert few.startswith("31 calibration images are few")
    (copies,) = warnings_for(model, set_of(np.concatenate([x[:120], x[:3], x[:3]])))
    assert copies == "6 of 126 calibration images are copies of others in the set."


@pytest.mark.shared
def test_random_weights_have_no_statistics_to_compare(pixels):
    model = mobiledeploy.build("v1", weights="random", width=0.25, resolution=64, num_classes=10)
    assert warnings_for(model, set_of(255 * pixels)) == ()


@pytest.mark.shared
def test_the_check_leaves_the_network_unchanged(model, pixels):
    warnings_for(model, set_of(normalised(pixels)))
    assert not any(module._forward_pre_hooks for module in model.module.modules())


@pytest.mark.shared
def test_norms_that_do_not_run_are_left_out(model, pixels):
    """Code may declare layers in any order, and some only for the training."""

    class WithTrainingHead(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.only_in_training = torch.nn.BatchNorm2d(7)
            self.network = model.module

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.network(images)

    own = replace(model, module=WithTrainingHead().eval())
    assert warnings_for(own, set_of(normalised(pixels))) == ()
    (found,) = warnings_for(own, set_of(normalised(pixels[:, ::-1])))
    assert "red and blue" in found
