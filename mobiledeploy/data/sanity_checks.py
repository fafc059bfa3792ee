"""Compare a calibration set with the network's BatchNorm statistics.

Input: the float network, with its BatchNorm, and images. Output: warnings, one sentence each.

The first BatchNorm's running mean and variance are those of each channel behind the first
convolution over the training set. Images with the preprocessing of the training reproduce them.
With mu, sigma^2 the running statistics and m, v those of the images:

    shift  = root mean square over channels of (m - mu) / sigma
    spread = mean over channels of log(v / sigma^2)

Measured (V2 on ImageNet, V1 and V3 on CIFAR-10, six draws of each size):

    images                             shift           spread
    correct, 32 or more                0.01 to 0.24    -0.3 to 0
    correct, 8                         up to 0.52      -0.3 to 0
    mean and std of 0.5                                -1.6
    not normalised                                     -2.9 to -2.7
    normalised twice                                   2.9
    pixels up to 255                   above 70
    red and blue swapped               0.16 to 0.36

Swapping red and blue back lowers the shift by a quarter or more. For correct images it never did,
except with images of only two classes.

The last BatchNorm's input differs between classes. Shift of its mean: correct images of all classes
0.06 to 0.2 (64 images or more), up to 0.24 (32), 0.14 to 0.23 with red and blue swapped; five of
CIFAR-10's ten classes 0.18 to 0.25, three 0.26 to 0.37, two 0.35 to 0.5, one 0.46 to 1.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from mobiledeploy.data.preprocess import pixels_reversed
from mobiledeploy.utils.progress import step
from mobiledeploy.utils.threads import batch_slices, channels_last, on_one_thread, parallel_map

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mobiledeploy.stages import CalibrationSet, FloatModel

_MIN_IMAGES = 32
_MAX_FIRST_IMAGES = 128  # run up to the first BatchNorm
_MAX_SHIFT = 0.4  # for `_MIN_IMAGES` images; fewer scatter more
_MAX_SPREAD = 1.2
_MAX_LAST_IMAGES = 64  # run up to the last BatchNorm
_MAX_LAST_SHIFT = 0.28  # for `_MAX_LAST_IMAGES` images
_SWAP_GAIN = 1.15  # by which swapping red and blue has to lower the shift


class _Reached(Exception):  # noqa: N818 - not an error: it skips the layers after the BatchNorm
    """The BatchNorm has been reached, with this input."""

    def __init__(self, value: torch.Tensor) -> None:
        super().__init__()
        self.value = value


def warnings_for(model: FloatModel, images: CalibrationSet) -> tuple[str, ...]:
    """Return warnings about calibration images, one sentence each."""
    found = (_too_few(images), _duplicates(model, images), _other_statistics(model, images))
    return tuple(text for text in found if text is not None)


def _too_few(images: CalibrationSet) -> str | None:
    if images.count >= _MIN_IMAGES:
        return None
    return f"{images.count} calibration images are few: use {_MIN_IMAGES} or more, ideally 100."


def _duplicates(model: FloatModel, images: CalibrationSet) -> str | None:
    unlike = {hashlib.sha256(image.tobytes()).digest() for image in images.images}
    copies = images.count - len(unlike)
    if not copies or (len(unlike) == 1 and not model.info.has_random_weights):
        return None  # nothing but copies is an error of the pipeline
    return f"{copies} of {images.count} calibration images are copies of others in the set."


def _other_statistics(model: FloatModel, images: CalibrationSet) -> str | None:
    """Return a deviation from the BatchNorm statistics.

    Images that are unlike those of the training already behind the first convolution are left to
    the training match, which names the cause.
    """
    if model.info.has_random_weights:
        return None  # random weights have no trained statistics
    norms = _norms_in_order(model.module, images.images[:1])
    if not norms:
        return None
    few = images.spread(_MAX_FIRST_IMAGES).images
    shift, spread = shift_and_spread(model.module, norms[0], few)
    limit = _MAX_SHIFT * max(1.0, (_MIN_IMAGES / len(few)) ** 0.5)
    if shift > limit or abs(spread) > _MAX_SPREAD:
        return None
    return _few_classes(model, norms[-1], images) or _swapped_channels(model, norms[0], few, shift)


def _norms_in_order(module: nn.Module, image: NDArray[np.float32]) -> list[nn.BatchNorm2d]:
    """Return the BatchNorms that an image (1, C, H, W) passes, in the order of execution."""
    passed: list[nn.BatchNorm2d] = []
    handles = [
        norm.register_forward_pre_hook(lambda reached, _: passed.append(reached))
        for norm in module.modules()
        if isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None
    ]
    try:
        with torch.no_grad():
            module(torch.from_numpy(image))
    finally:
        for handle in handles:
            handle.remove()
    return passed


def _few_classes(model: FloatModel, last: nn.BatchNorm2d, images: CalibrationSet) -> str | None:
    few = images.spread(_MAX_LAST_IMAGES).images
    with step("Checking the calibration images"):
        shift, _ = shift_and_spread(model.module, last, few)
    limit = _MAX_LAST_SHIFT * (_MAX_LAST_IMAGES / len(few)) ** 0.5
    if shift <= limit:
        return None
    return (
        "The calibration images seem to be of few of the network's classes: before"
        f" its last BatchNorm their mean is off by {shift:.2f} standard deviations (expected: at"
        f" most {limit:.2f}). Activations of other images may be clipped: calibrate on images of"
        " all kinds that the network will see."
    )


def _swapped_channels(
    model: FloatModel, first: nn.BatchNorm2d, few: NDArray[np.float32], shift: float
) -> str | None:
    if len(few) < _MIN_IMAGES or few.shape[1] != 3:
        return None
    swapped = pixels_reversed(few, model.info.preprocessing)
    if shift <= _SWAP_GAIN * shift_and_spread(model.module, first, swapped)[0]:
        return None
    return (
        "The calibration images fit the network better with red and blue swapped: were"
        " they written in BGR order, for example by OpenCV?"
    )


@on_one_thread
def shift_and_spread(
    module: nn.Module, norm: nn.BatchNorm2d, images: NDArray[np.float32]
) -> tuple[float, float]:
    """Return shift and spread (see above) of a BatchNorm's input against its running statistics.

    Args:
        module: The network.
        norm: A BatchNorm layer of the network.
        images: Inputs, (N, C, H, W).
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None

    def look(_: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        raise _Reached(inputs[0])

    middle = norm.running_mean.view(-1, 1)

    def moments_of_input(batch: slice) -> tuple[int, torch.Tensor, torch.Tensor]:
        try:
            module(channels_last(images[batch]))
        except _Reached as reached:
            # deviations are small: their squares lose few digits in float32
            deviations = reached.value.transpose(0, 1).flatten(1) - middle
            squares = deviations.square().sum(1, dtype=torch.float64)
            return deviations.shape[1], deviations.sum(1, dtype=torch.float64), squares
        raise AssertionError("the network does not run this BatchNorm")

    handle = norm.register_forward_pre_hook(look)
    try:
        moments = list(parallel_map(moments_of_input, batch_slices(images)))
    finally:
        handle.remove()
    counts, sums, squares = zip(*moments, strict=True)
    mean, mean_square = (torch.stack(each).sum(0) / sum(counts) for each in (sums, squares))
    expected = norm.running_var.double() + norm.eps
    shift = (mean / expected.sqrt()).square().mean().sqrt()
    spread = ((mean_square - mean.square()) / expected).clamp_min(1e-12).log().mean()
    return float(shift), float(spread)
