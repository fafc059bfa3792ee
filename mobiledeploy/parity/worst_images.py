"""Find the images on which the last rung is farthest from float.

Images whose top-1 class changed come first, by float's margin; then the others, by the KL
divergence of their probabilities.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import scipy
from PIL import Image

from mobiledeploy import metrics
from mobiledeploy.parity.types import Prediction, WorstImage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mobiledeploy.network import Preprocessing

    Logits = NDArray[np.float32]

_TOP = 5
_THUMBNAIL = 112


def worst_images(
    inputs: NDArray[np.float32],
    float_logits: Logits,
    logits: Logits,
    *,
    count: int,
    names: Sequence[str],
    labels: Sequence[int] | None,
    classes: Sequence[str],
    preprocessing: Preprocessing,
) -> tuple[WorstImage, ...]:
    """Return the `count` images on which the last rung is farthest from float.

    Args:
        inputs: (N, C, H, W), as the network takes them.
        float_logits: (N, classes).
        logits: (N, classes), of the last rung.
        count: How many images to return, at most.
        names: One per image; empty if they have none.
        labels: Class index of each image; None where unknown.
        classes: Names of the classes; empty where unknown.
        preprocessing: What made the inputs from pixels; the thumbnails undo it.
    """
    margins = metrics.top1_margins(float_logits, logits)
    divergences = metrics.kl_divergences(float_logits, logits)
    order = np.lexsort((-divergences, -margins))[:count]
    return tuple(
        WorstImage(
            name=names[i] if names else f"image {i}",
            margin=float(margins[i]),
            kl_divergence=float(divergences[i]),
            label="" if labels is None else _class_name(classes, labels[i]),
            float_top5=_top5(float_logits[i], classes),
            top5=_top5(logits[i], classes),
            thumbnail=_thumbnail(inputs[i], preprocessing),
        )
        for i in order
    )


def _top5(logits: NDArray[np.float32], classes: Sequence[str]) -> tuple[Prediction, ...]:
    """Return the five most probable classes of one image, most probable first."""
    probabilities = scipy.special.softmax(logits.astype(np.float64))
    order = np.argsort(-probabilities, kind="stable")[:_TOP]
    return tuple(
        Prediction(label=_class_name(classes, int(i)), probability=float(probabilities[i]))
        for i in order
    )


def _class_name(classes: Sequence[str], index: int) -> str:
    return classes[index] if index < len(classes) else f"class {index}"


def _thumbnail(image: NDArray[np.float32], preprocessing: Preprocessing) -> bytes:
    """Return a small picture of an input, (C, H, W), as WebP."""
    mean = np.array(preprocessing.mean, np.float32)[:, None, None]
    std = np.array(preprocessing.std, np.float32)[:, None, None]
    pixels = np.clip((image * std + mean) * 255, 0, 255).round().astype(np.uint8)
    channels = pixels.transpose(1, 2, 0) if len(pixels) >= 3 else pixels[0]
    picture = Image.fromarray(channels[..., :3] if channels.ndim == 3 else channels)
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=70)
    return buffer.getvalue()
