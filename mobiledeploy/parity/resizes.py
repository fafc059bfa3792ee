"""What the resize functions of phones would change, on the images at hand.

Apps resize with the functions of their platform, networks are trained with those of Pillow or
TensorFlow. These are models of them, not their code:

    bilinear-aliased    Android's `Bitmap.createScaledBitmap` with `filter=true`: bilinear without
                        antialiasing, as its documentation says and Skia's linear filter without
                        mipmaps does
    bilinear            bilinear with antialiasing: Pillow, torchvision, `tf.image.resize` with
                        `antialias=True`
    lanczos             iOS's vImage, whose documentation names Lanczos as the default algorithm;
                        Core Graphics does not document that of its high quality

The crop and all sizes are those of the network's preprocessing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from mobiledeploy.network import INPUT_NAME, Interpolation
from mobiledeploy.parity.batches import in_batches
from mobiledeploy.parity.compare import compare_logits, compare_outputs, compare_together
from mobiledeploy.parity.types import ResizeEffect
from mobiledeploy.runtimes.pytorch import EagerRunner
from mobiledeploy.utils.outputs import joined_arrays

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from mobiledeploy.stages import CalibrationSet, FloatModel

RESIZES: tuple[Interpolation, ...] = ("bilinear-aliased", "bilinear", "lanczos")


def measure_resizes(
    model: FloatModel, images: CalibrationSet, load: Callable[[Interpolation], CalibrationSet]
) -> tuple[ResizeEffect, ...]:
    """Return what each other resize would change in the float network's outputs.

    Args:
        model: The float network.
        images: The images as the network's preprocessing resizes them.
        load: Loads the same images with another interpolation.
    """
    expected = _outputs(model, images.images)
    std = np.array(model.info.preprocessing.std, np.float32)[:, None, None]
    effects = []
    for interpolation in RESIZES:
        if interpolation == model.info.preprocessing.interpolation:
            continue
        resized = load(interpolation).images
        outputs = model.info.outputs
        found = _outputs(model, resized)
        metrics = (
            compare_together(expected, found, compare_outputs(expected, found, outputs, {}))
            if len(outputs) > 1
            else compare_logits(expected, found, task=outputs[0].task)
        )
        effects.append(
            ResizeEffect(
                interpolation=interpolation,
                mean_pixel_difference=float(np.abs((resized - images.images) * std).mean() * 255),
                sqnr_db=metrics.get("sqnr_db"),
                top1_agreement=metrics.get("top1_agreement"),
            )
        )
    return tuple(effects)


def _outputs(model: FloatModel, images: NDArray[np.float32]) -> NDArray[np.float32]:
    runner = EagerRunner(model.module)
    batches = [joined_arrays(runner.run({INPUT_NAME: batch})) for batch in in_batches(images)]
    return cast("NDArray[np.float32]", np.concatenate(batches))
