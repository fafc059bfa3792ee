"""Convert between normalised images and the pixels that an app writes into a network's input.

Input and output: normalised images are float32 (N, C, H, W), as the network was trained with;
pixels are uint8 in the layout and channel order of an `InputFormat`, with alpha 255.
Invariant: images that were made from pixels become these pixels again, exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mobiledeploy.data.preprocess import channels_reversed, normalize
from mobiledeploy.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mobiledeploy.network import InputSpec, Preprocessing

    Images = NDArray[np.float32]
    Pixels = NDArray[np.uint8]

_OPAQUE = 255
_ROUNDING = 0.01  # of a pixel; float32 errs by less than a thousandth


def artifact_inputs(images: Images, image: InputSpec) -> NDArray[Any]:
    """Return what an app writes into the input of an artifact, for normalised images.

    Args:
        images: Normalised, (N, C, H, W).
        image: The network's input. With the format "float" the images are returned as they are.

    Raises:
        DataError: the format is pixels, and the images were not made from pixels.
    """
    if not image.format.is_pixels:
        return images
    values = _pixel_values(images, image.preprocessing)
    pixels = np.rint(values)
    if np.abs(values - pixels).max() > _ROUNDING or pixels.min() < 0 or pixels.max() > _OPAQUE:
        raise DataError(
            "The images were not made from 8-bit pixels, which the input"
            f" {image.format.name} takes.",
            remedy="Load them with mobiledeploy.load_images and the network, or export with"
            " --input float.",
        )
    network_order = "RGB" if image.channels == 3 else "Y"
    order = image.format.order
    packed = np.full((len(images), *image.artifact_shape), _OPAQUE, np.uint8)
    planes = packed.transpose(image.format.planes_axes)
    for place, channel in enumerate(order):
        if channel != "A":
            planes[:, place] = pixels[:, network_order.index(channel)]
    return packed


def folded_inputs(inputs: NDArray[Any], image: InputSpec) -> Images:
    """Return the input of a network whose preprocessing is folded, float32 (N, C, H, W).

    Args:
        inputs: From `artifact_inputs`: pixels, or normalised images, which are returned as they
            are.
        image: The network's input.
    """
    if inputs.dtype != np.uint8:
        return cast("Images", inputs)
    return np.ascontiguousarray(inputs.transpose(image.format.planes_axes), np.float32)


def colours_reversed(inputs: NDArray[Any], image: InputSpec) -> NDArray[Any]:
    """Return inputs of artifacts, images or pixels, with reversed colours; alpha stays."""
    if inputs.dtype != np.uint8:
        return channels_reversed(inputs)
    swapped = inputs.copy()
    given, found = (each.transpose(image.format.planes_axes) for each in (inputs, swapped))
    found[:, :3] = given[:, 2::-1]
    return swapped


def round_to_pixels(images: Images, preprocessing: Preprocessing) -> None:
    """Round normalised images, (N, C, H, W), to those of the nearest pixels, in place.

    An app that resizes an image gets 8-bit pixels, too.
    """
    for image in images:  # one by one, to need little memory
        pixels = np.clip(np.rint(_pixel_values(image[None], preprocessing)[0]), 0, _OPAQUE)
        image[:] = normalize(pixels.transpose(1, 2, 0), preprocessing).transpose(2, 0, 1)


def _pixel_values(images: Images, preprocessing: Preprocessing) -> Images:
    mean, std = (
        np.array(values, np.float32)[:, None, None]
        for values in (preprocessing.mean, preprocessing.std)
    )
    return cast("Images", (images * std + mean) * np.float32(_OPAQUE))
