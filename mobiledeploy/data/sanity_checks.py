"""Does a calibration set look like what the network was trained on?

In: the float network, with its BatchNorm, and images. Out: sentences for people; none where nothing
looks wrong. Nothing is decided here: int8 of a wrong set is wrong, but float of it was wrong too.

The first BatchNorm remembers the mean and the variance of each channel behind the first
convolution, over the whole training set. Images that were preprocessed as those were reproduce
them. With mu, sigma^2 remembered and m, v those of the images:

    shift  = root mean square over channels of (m - mu) / sigma
    spread = mean over channels of log(v / sigma^2)

Measured (V2 on ImageNet, V1 and V3 on CIFAR-10, six draws of each size): right images give a shift
of 0.01 to 0.24 from 32 images on, and up to 0.52 of 8; a spread of -0.3 to 0. Mean and std of 0.5
give a spread of -1.6; not normalised, -2.7 to -2.9; normalised twice, 2.9; pixels up to 255, a
shift above 70. Red and blue exchanged only move the shift to 0.16 to 0.36; but exchanged back they
lower it by a quarter or more, which right images never did, but those of two classes may.

The last BatchNorm sees what tells classes apart. Right images of all classes shift it by 0.06 to
0.2, from 64 on, and up to 0.24 of 32; with red and blue exchanged by 0.14 to 0.23. Of five of
CIFAR-10's ten classes they shift it by 0.18 to 0.25, of three by 0.26 to 0.37, of two by 0.35 to
0.5, of one by 0.46 to 1. What it costs to calibrate on three: docs/data.md.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from mobiledeploy.data.preprocess import pixels_reversed
from mobiledeploy.utils.progress import step
from mobiledeploy.utils.threads import on_one_thread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mobiledeploy.network import CalibrationSet, FloatModel

_ENOUGH = 32
_MOST_LOOKED_AT = 128
_LARGEST_SHIFT = 0.4  # of `_ENOUGH` images; fewer scatter more
_LARGEST_SPREAD = 1.2
_MOST_RUN = 64  # through the whole network
_LARGEST_LAST_SHIFT = 0.28  # of `_MOST_RUN` images
_EXCHANGED = 1.15


class _SeenEnough(Exception):  # noqa: N818 - no error: what follows the BatchNorm need not be run
    """The BatchNorm has been reached."""


def warnings_for(model: FloatModel, images: CalibrationSet) -> tuple[str, ...]:
    """Return what looks wrong about calibration images, one sentence each."""
    found = (_too_few(images), _repeated(images), _not_as_remembered(model, images))
    return tuple(text for text in found if text is not None)


def _too_few(images: CalibrationSet) -> str | None:
    if images.count >= _ENOUGH:
        return None
    return f"{images.count} calibration images are few: give {_ENOUGH} or more, 100 for the best."


def _repeated(images: CalibrationSet) -> str | None:
    unlike = {hashlib.sha256(image.tobytes()).digest() for image in images.images}
    copies = images.count - len(unlike)
    if not copies:
        return None
    return f"{copies} of {images.count} calibration images are copies of others in the set."


def _not_as_remembered(model: FloatModel, images: CalibrationSet) -> str | None:
    """Return the first doubt that BatchNorms raise: it may bring about what others would find."""
    norms = [module for module in model.module.modules() if isinstance(module, nn.BatchNorm2d)]
    if model.info.has_random_weights or not norms:
        return None  # nothing was learned, so nothing is remembered
    few = images.spread(_MOST_LOOKED_AT).images
    shift, spread = shift_and_spread(model.module, norms[0], few)
    return (
        _unlike_training(shift, spread, len(few))
        or _of_few_classes(model, norms[-1], images)
        or _exchanged(model, norms[0], few, shift)
    )


def _unlike_training(shift: float, spread: float, count: int) -> str | None:
    limit = _LARGEST_SHIFT * max(1.0, (_ENOUGH / count) ** 0.5)
    if shift <= limit and abs(spread) <= _LARGEST_SPREAD:
        return None
    return (
        "The calibration images are unlike those that the network was trained on: behind the"
        f" first convolution their mean is off by {shift:.2f} standard deviations (expected: at"
        f" most {limit:.2f}) and their variance {np.exp(spread):.2g} times as large (expected:"
        f" {np.exp(-_LARGEST_SPREAD):.2g} to {np.exp(_LARGEST_SPREAD):.2g}). Usually the"
        " preprocessing is not that of training: look at --mean and --std."
    )


def _of_few_classes(model: FloatModel, last: nn.BatchNorm2d, images: CalibrationSet) -> str | None:
    few = images.spread(_MOST_RUN).images
    with step("Looking at the calibration images"):
        shift, _ = shift_and_spread(model.module, last, few)
    limit = _LARGEST_LAST_SHIFT * (_MOST_RUN / len(few)) ** 0.5
    if shift <= limit:
        return None
    return (
        "The calibration images seem to be of few of the classes that the network knows: in front"
        f" of its last BatchNorm their mean is off by {shift:.2f} standard deviations (expected: at"
        f" most {limit:.2f}). What other images show may be clipped: calibrate with all kinds that"
        " the network will meet."
    )


def _exchanged(
    model: FloatModel, first: nn.BatchNorm2d, few: NDArray[np.float32], shift: float
) -> str | None:
    if len(few) < _ENOUGH or few.shape[1] != 3:
        return None
    exchanged = pixels_reversed(few, model.info.preprocessing)
    if shift <= _EXCHANGED * shift_and_spread(model.module, first, exchanged)[0]:
        return None
    return (
        "The calibration images suit the network better with red and blue exchanged: were"
        " they written as BGR, as OpenCV has them?"
    )


@on_one_thread
def shift_and_spread(
    module: nn.Module, norm: nn.BatchNorm2d, images: NDArray[np.float32]
) -> tuple[float, float]:
    """Return how far what a BatchNorm sees is from what it remembers (see above).

    Args:
        module: The network.
        norm: The BatchNorm, one of the network's.
        images: (N, C, H, W).
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    seen: list[torch.Tensor] = []

    def look(_: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        seen.append(inputs[0])
        raise _SeenEnough

    handle = norm.register_forward_pre_hook(look)
    try:
        for image in images:
            with torch.no_grad(), suppress(_SeenEnough):
                module(torch.from_numpy(image[None]))
    finally:
        handle.remove()
    every = torch.cat(seen).transpose(0, 1).flatten(1).double()
    remembered = norm.running_var.double() + norm.eps
    shift = ((every.mean(1) - norm.running_mean) / remembered.sqrt()).square().mean().sqrt()
    spread = (every.var(1) / remembered).clamp_min(1e-12).log().mean()
    return float(shift), float(spread)
