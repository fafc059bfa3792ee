"""Images in an `.npz`: `images`, uint8 (N, H, W, C), and optionally `labels`, integers (N,).

Input: a path. Output: the arrays, and float32 inputs made from them. Invariant: images are not
cropped, because images of array data sets (CIFAR, MNIST) have no margin.
"""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from mobiledeploy.data.preprocess import normalize
from mobiledeploy.errors import DataError
from mobiledeploy.network import Preprocessing

_EXPECTED = "expected `images`, uint8 (N, H, W, C), and optionally `labels`, integers (N,)"
_MAGIC = (b"PK", b"\x93NUMPY")  # first bytes of an .npz, which is a zip, and of an .npy
# RuntimeError: an encrypted archive, or a compression that zipfile does not support
_UNREADABLE = (
    *(OSError, ValueError, EOFError, KeyError, RuntimeError, MemoryError, OverflowError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
)


@dataclass(frozen=True, slots=True)
class ImageArrays:
    """Images, uint8 (N, H, W, C), and their labels (N,), or None."""

    images: NDArray[np.uint8]
    labels: NDArray[np.integer[Any]] | None


def read_arrays(path: Path, in_channels: int) -> ImageArrays:
    """Read and check an `.npz`.

    Raises:
        DataError: The file cannot be read, or its arrays have the wrong names, types or shapes.
    """
    try:
        with path.open("rb") as handle:  # if np.load opened it, it would stay open after an error
            if not handle.read(len(_MAGIC[1])).startswith(_MAGIC):  # np.load would try pickle
                raise DataError(f"Could not read {path}: it is not an .npz; {_EXPECTED}.")
            handle.seek(0)
            file = np.load(handle, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise DataError(f"{path} is a single array, not an .npz; {_EXPECTED}.")
            if "images" not in file:
                found = ", ".join(f"`{name}`" for name in file.files) or "nothing"
                raise DataError(f"{path} holds {found}; {_EXPECTED}.")
            images, labels = file["images"], file.get("labels")
    except _UNREADABLE as error:
        reason = str(error) or repr(error)
        raise DataError(f"Could not read {path}: {reason}; {_EXPECTED}.") from error
    _check_images(path, images, in_channels)
    if labels is not None and (labels.shape != images.shape[:1] or labels.dtype.kind not in "iu"):
        raise DataError(
            f"{path}: `labels` is {labels.dtype} {labels.shape}; expected one integer for each of "
            f"the {len(images)} images."
        )
    return ImageArrays(images, labels)


def inputs_of(
    images: NDArray[np.uint8], preprocessing: Preprocessing, resolution: int
) -> NDArray[np.float32]:
    """Normalise images and resize them to the input's size, without a crop.

    Networks are trained on upsampled small images in this order: torch's interpolate on the
    normalised float tensor, with align_corners=False and no antialiasing.

    Args:
        images: Pixels, (N, H, W, C).
        preprocessing: `interpolation` is torch's mode of that name; `crop_pct` is not used.
        resolution: Side of the square input in pixels; other aspect ratios are stretched.

    Returns:
        Inputs, (N, C, resolution, resolution), contiguous.
    """
    x = torch.from_numpy(normalize(images.astype(np.float32), preprocessing)).permute(0, 3, 1, 2)
    mode = preprocessing.interpolation
    align = None if mode == "nearest" else False  # torch allows no value for nearest
    resized = F.interpolate(x, (resolution, resolution), mode=mode, align_corners=align)
    array: NDArray[np.float32] = resized.contiguous().numpy()
    return array


def _check_images(path: Path, images: NDArray[np.generic], in_channels: int) -> None:
    """Raise DataError unless these are images with `in_channels` channels."""
    if images.dtype != np.uint8 or images.ndim != 4:
        raise DataError(f"{path}: `images` is {images.dtype} {images.shape}; {_EXPECTED}.")
    if 0 in images.shape:
        raise DataError(f"{path} has no images: `images` is {images.shape}.")
    if images.shape[3] != in_channels:
        raise DataError(
            f"{path}: `images` is {images.shape}, (N, H, W, C) with {images.shape[3]} channels; "
            f"the network's input has {in_channels}.",
            remedy="Put the channels last, or build the network with as many --in-channels.",
        )
