"""Convert an image to a network's input.

Input: a PIL image. Output: float32 (C, H, W), (pixel / 255 - mean) / std. Invariant: the steps are
those of the published evaluation: resize the short side, centre crop, normalise in float32. The
long side is rounded to the nearest pixel and the crop's offset down; torchvision rounds the long
side down and the offset to the nearest, which can differ by one pixel.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mobiledeploy.errors import DataError, UsageError
from mobiledeploy.network import ImageSize, Interpolation, Preprocessing, sides_of
from mobiledeploy.utils.arguments import require_fields
from mobiledeploy.utils.finite import is_finite

if TYPE_CHECKING:
    from collections.abc import Mapping

_FILTERS: dict[Interpolation, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_ALIASED: Interpolation = "bilinear-aliased"
INTERPOLATIONS: tuple[Interpolation, ...] = (*_FILTERS, _ALIASED)
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # by the network's input channels
_EIGHT_BIT_MODES = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX"} |
                             {"CMYK", "YCbCr", "LAB", "HSV"})  # fmt: skip


def default_preprocessing(in_channels: int) -> Preprocessing:
    """Return ImageNet's preprocessing; if not RGB, its mean over the channels for each channel."""
    rgb = Preprocessing()
    if in_channels == 3:
        return rgb
    mean, std = sum(rgb.mean) / 3, sum(rgb.std) / 3
    return Preprocessing(mean=(mean,) * in_channels, std=(std,) * in_channels)


def complete_preprocessing(
    given: Preprocessing | Mapping[str, Any] | None, implied: Preprocessing
) -> Preprocessing:
    """Return the given preprocessing; a mapping replaces the fields that it names.

    Raises:
        UsageError: there is no such field.
    """
    if given is None or isinstance(given, Preprocessing):
        return given or implied
    require_fields(given, Preprocessing, "preprocessing")
    return replace(implied, **given)


def check_preprocessing(preprocessing: Preprocessing, channels: int) -> None:
    """Check the values of `preprocessing` for inputs with `channels` channels.

    Raises:
        UsageError: Values are missing, superfluous or out of range.
    """
    for name, values in (("mean", preprocessing.mean), ("std", preprocessing.std)):
        if len(values) != channels or not all(is_finite(value) for value in values):
            raise UsageError(
                f"The preprocessing's {name} is {values}; "
                f"the network's input needs {channels}, one finite number per channel.",
                remedy=f"Pass --{name} one number per channel, separated by commas.",
            )
    if not all(0 <= value <= 1 for value in preprocessing.mean):
        raise UsageError(
            f"The preprocessing's mean is {preprocessing.mean}; expected values for pixels "
            "in [0, 1].",
            remedy="Divide mean and std by 255 if they are for pixels up to 255.",
        )
    if not all(0 < value <= 1 for value in preprocessing.std):
        raise UsageError(
            f"The preprocessing's std is {preprocessing.std}; expected values for pixels "
            "in [0, 1].",
            remedy="Pass --std values above 0 and at most 1.",
        )
    if not 0 < preprocessing.crop_pct <= 1:
        raise UsageError(
            f"The preprocessing's crop-pct is {preprocessing.crop_pct}; expected the share of the "
            "resized short side that the centre crop keeps.",
            remedy="Pass --crop-pct a number above 0 and at most 1 (ImageNet: 0.875).",
        )
    if preprocessing.interpolation not in INTERPOLATIONS:
        raise UsageError(
            f"There is no interpolation {preprocessing.interpolation!r}.",
            remedy=f"Choose one of {', '.join(INTERPOLATIONS)}.",
        )


def preprocess(
    image: Image.Image, preprocessing: Preprocessing, resolution: ImageSize
) -> NDArray[np.float32]:
    """Resize until the image covers round(resolution / crop_pct), crop the centre, normalise.

    Args:
        image: An image of any 8-bit mode. It is converted to grey, RGB or RGBA if the mean has
            1, 3 or 4 values.
        preprocessing: Values that passed `check_preprocessing`.
        resolution: Size of the input in pixels: the side of a square, or height and width.

    Returns:
        The input, (C, H, W), contiguous.

    Raises:
        DataError: Image files cannot have that many channels, or the pixels are not 8-bit.
    """
    image = _with_channels(image, len(preprocessing.mean))
    rows, columns = sides_of(resolution)
    cover = [round(side / preprocessing.crop_pct) for side in (columns, rows)]
    scale = max(least / side for least, side in zip(cover, image.size, strict=True))
    width, height = (
        max(least, round(side * scale)) for least, side in zip(cover, image.size, strict=True)
    )
    image = _resized(image, (width, height), preprocessing.interpolation)
    left, top = (width - columns) // 2, (height - rows) // 2
    image = image.crop((left, top, left + columns, top + rows))
    pixels = np.asarray(image, np.float32).reshape(rows, columns, -1)
    return np.ascontiguousarray(normalize(pixels, preprocessing).transpose(2, 0, 1))


def _resized(
    image: Image.Image, size: tuple[int, int], interpolation: Interpolation
) -> Image.Image:
    """Return an image in another size, (width, height)."""
    if interpolation != _ALIASED:
        return image.resize(size, _FILTERS[interpolation])
    import torch  # noqa: PLC0415 - the other filters do without it

    pixels = np.atleast_3d(np.asarray(image, np.float32)).transpose(2, 0, 1)
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(np.ascontiguousarray(pixels))[None],
        size[::-1],
        mode="bilinear",
        align_corners=False,  # the centres of pixels lie at 1/2
        antialias=False,
    )
    rounded = resized[0].round().to(torch.uint8).numpy().transpose(1, 2, 0)
    return Image.fromarray(rounded.squeeze(2) if rounded.shape[2] == 1 else rounded, image.mode)


def normalize(pixels: NDArray[np.float32], preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Map pixels in [0, 255], (..., C), to (pixel / 255 - mean) / std."""
    mean = np.array(preprocessing.mean, np.float32)
    std = np.array(preprocessing.std, np.float32)
    return (pixels / np.float32(255) - mean) / std


def _with_channels(image: Image.Image, channels: int) -> Image.Image:
    """Convert to the mode that has `channels` channels."""
    if channels not in _MODES:
        raise DataError(
            f"The network's input has {channels} channels; an image file has 1 (grey), 3 (RGB) or "
            "4 (RGBA).",
            remedy="Pass the images as an .npz with `images`, uint8 (N, H, W, C).",
        )
    if image.mode not in _EIGHT_BIT_MODES:  # PIL would silently clip 16-bit values to 255
        raise DataError(
            f"The image has {image.mode!r} pixels; expected 8 bits per channel.",
            remedy="Convert it to an 8-bit image.",
        )
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # PIL warns if it converts directly to RGB
    return image.convert(_MODES[channels])


def channels_reversed(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Reverse the channels of normalised inputs, (N, C, H, W): the input of a BGR network."""
    return np.ascontiguousarray(images[:, ::-1])


def pixels_reversed(
    images: NDArray[np.float32], preprocessing: Preprocessing
) -> NDArray[np.float32]:
    """Return the inputs, (N, C, H, W), of the same images with reversed channels."""
    mean = np.array(preprocessing.mean, np.float32)[:, None, None]
    std = np.array(preprocessing.std, np.float32)[:, None, None]
    reversed_pixels = channels_reversed(images * std + mean)
    return (reversed_pixels - mean) / std
