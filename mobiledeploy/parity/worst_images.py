"""The images on which the last rung is farthest from float: what to look at first.

In: inputs, both sides' logits. Out: `ImageError`s, the worst first: changed classes by float's
margin, then the others by the divergence of their probabilities.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from mobiledeploy.parity.types import Guess, ImageError

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
    truth: Sequence[int] | None,
    classes: Sequence[str],
    preprocessing: Preprocessing,
) -> tuple[ImageError, ...]:
    """Return the `count` worst images.

    Args:
        inputs: (N, C, H, W), as the network takes them.
        float_logits: (N, classes).
        logits: Of the last rung.
        count: At most so many.
        names: One per image; empty where they have none.
        truth: Class index per image, where known.
        classes: Names of the classes; empty where not known.
        preprocessing: What turned pixels into inputs: undone for the thumbnails.
    """
    rows = np.arange(len(inputs))
    first, preferred = float_logits.argmax(1), logits.argmax(1)
    margins = (float_logits[rows, first] - float_logits[rows, preferred]).astype(np.float64)
    p, q = _softmax(float_logits), _softmax(logits)
    divergence = (p * (np.log(p + 1e-300) - np.log(q + 1e-300))).sum(1)
    order = np.lexsort((-divergence, -margins))[:count]
    return tuple(
        ImageError(
            name=names[i] if names else f"image {i}",
            margin=float(margins[i]),
            kl_divergence=float(divergence[i]),
            truth="" if truth is None else _label(classes, truth[i]),
            float_top=_guesses(p[i], classes),
            top=_guesses(q[i], classes),
            thumbnail=_thumbnail(inputs[i], preprocessing),
        )
        for i in order
    )


def _guesses(probabilities: NDArray[np.float64], classes: Sequence[str]) -> tuple[Guess, ...]:
    order = np.argsort(-probabilities, kind="stable")[:_TOP]
    return tuple(
        Guess(label=_label(classes, int(i)), probability=float(probabilities[i])) for i in order
    )


def _label(classes: Sequence[str], index: int) -> str:
    return classes[index] if index < len(classes) else f"class {index}"


def _softmax(logits: Logits) -> NDArray[np.float64]:
    exponents = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = exponents / exponents.sum(axis=1, keepdims=True)
    return shares


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
