"""Images and labels in an `.npz`, as this package and Keras write them.

Input: a path. Output: images, uint8 (N, H, W, C), with labels (N,), and float32 inputs made from
them. Invariant: images are not cropped, because images of array data sets (CIFAR, MNIST) have no
margin.
"""

from __future__ import annotations

import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from mobiledeploy.data.preprocess import normalize
from mobiledeploy.errors import DataError
from mobiledeploy.network import ImageSize, Preprocessing, sides_of
from mobiledeploy.utils.files import reason_of, require_regular

_EXPECTED = (
    "expected `images`, uint8 (N, H, W, C), and optionally `labels`, integers (N,), "
    "or `x_train` and `y_train`"
)
_TRAINING_NAMES = (
    *(("images", "labels"), ("x_train", "y_train"), ("x", "y"), ("data", "labels")),
    *(("images", "targets"), ("data", "target"), ("arr_0", "arr_1")),
)
_TEST_NAMES = (("x_test", "y_test"), ("test_images", "test_labels"))
_MAGIC = (b"PK", b"\x93NUMPY")  # first bytes of an .npz, which is a zip, and of an .npy
# RuntimeError: an encrypted archive, or a compression that zipfile does not support. numpy parses
# the header of an array as Python's literals, whence errors of syntax.
_UNREADABLE = (
    *(OSError, ValueError, EOFError, KeyError, RuntimeError, MemoryError, OverflowError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(SyntaxError, tokenize.TokenError, TypeError, RecursionError),
)
_AT_ONCE = 256  # images that are resized together


@dataclass(frozen=True, slots=True)
class ImageArrays:
    """Images of an `.npz`.

    Attributes:
        images: Pixels, uint8 (N, H, W, C).
        labels: The array of labels as it is; None if there is none.
        notes: What was chosen and rearranged, one sentence each.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.generic] | None
    notes: tuple[str, ...] = ()


def read_arrays(path: Path, in_channels: int, *, for_calibration: bool = False) -> ImageArrays:
    """Read and check an `.npz`.

    Args:
        path: Path of the file.
        in_channels: Channels of the network's input.
        for_calibration: Whether training images are preferred to test images if it holds both.

    Raises:
        DataError: The file cannot be read, or its arrays have the wrong names, types or shapes.
    """
    require_regular(path, DataError)
    try:
        with path.open("rb") as handle:  # if np.load opened it, it would stay open after an error
            if not handle.read(len(_MAGIC[1])).startswith(_MAGIC):  # np.load would try pickle
                raise DataError(f"Could not read {path}: it is not an .npz; {_EXPECTED}.")
            handle.seek(0)
            file = np.load(handle, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise DataError(f"{path} is a single array, not an .npz; {_EXPECTED}.")
            chosen, notes = _names(path, file.files, for_calibration=for_calibration)
            images = _array(file, chosen[0])
            labels = _array(file, chosen[1]) if chosen[1] in file else None
    except _UNREADABLE as error:
        raise DataError(f"Could not read {path}: {reason_of(error)}; {_EXPECTED}.") from error
    images, more = _as_nhwc(path, chosen[0], images, in_channels)
    return ImageArrays(images, labels, (*notes, *more))


def _array(file: Mapping[str, object], name: str) -> NDArray[Any]:
    """Return an array of an archive; numpy returns the bytes of a member that is none.

    Raises:
        TypeError: The member is not an array.
    """
    value = file[name]
    if not isinstance(value, np.ndarray):
        raise TypeError(f"`{name}` is not an array")
    return value


def labels_in(
    path: Path, arrays: ImageArrays, chosen: list[int], num_classes: int
) -> tuple[int, ...] | None:
    """Return the class index of the chosen images; None if the file has no labels.

    Labels may be integers or whole floats, of shape (N,) or (N, 1), or one-hot rows (N, classes).

    Raises:
        DataError: The labels have another shape or type, or an index is out of range.
    """
    if arrays.labels is None or num_classes == 0:
        return None
    labels, count = arrays.labels, len(arrays.images)
    is_number = labels.dtype.kind in "iufb"
    if is_number and labels.shape == (count, num_classes) and _is_one_hot(labels):
        return tuple(int(row.argmax()) for row in labels[chosen])
    whole = is_number and bool((labels == np.floor(labels.astype(np.float64))).all())
    if labels.size != count or labels.shape[:1] != (count,) or not whole:
        raise DataError(
            f"{path}: `labels` is {labels.dtype} {labels.shape}; expected one integer for each of "
            f"the {count} images."
        )
    indices = tuple(int(label) for label in labels.reshape(count)[chosen])
    for image, label in zip(chosen, indices, strict=True):
        if not 0 <= label < num_classes:
            raise DataError(
                f"{path}: image {image} has label {label}; "
                f"the network has {num_classes} classes, counted from 0.",
                remedy="Pass images of this network's classes, or leave `labels` out.",
            )
    return indices


def _is_one_hot(labels: NDArray[Any]) -> bool:
    return bool(np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all())


def inputs_of(
    images: NDArray[np.uint8],
    preprocessing: Preprocessing,
    resolution: ImageSize,
    into: NDArray[np.float32],
) -> None:
    """Normalise images and resize them to the input's size, without a crop.

    Networks are trained on upsampled small images in this order: torch's interpolate on the
    normalised float tensor, with align_corners=False and no antialiasing.

    Args:
        images: Pixels, (N, H, W, C).
        preprocessing: `interpolation` is torch's mode of that name; `crop_pct` is not used.
        resolution: Size of the input in pixels; other aspect ratios are stretched.
        into: Receives the inputs, (N, C, H, W).
    """
    mode = preprocessing.interpolation
    align = None if mode == "nearest" else False  # torch allows no value for nearest
    for first in range(0, len(images), _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        x = torch.from_numpy(normalize(images[part].astype(np.float32), preprocessing))
        resized = F.interpolate(
            x.permute(0, 3, 1, 2), sides_of(resolution), mode=mode, align_corners=align
        )
        into[part] = resized.numpy()


def _names(
    path: Path, names: list[str], *, for_calibration: bool
) -> tuple[tuple[str, str], list[str]]:
    """Return the names of images and labels in the file, and a note if there was a choice.

    Raises:
        DataError: There are none.
    """
    by_name = {name.lower(): name for name in names}
    both = (_TRAINING_NAMES, _TEST_NAMES) if for_calibration else (_TEST_NAMES, _TRAINING_NAMES)
    order = [("images", "labels"), *both[0], *both[1]]
    present = [pair for pair in order if pair[0] in by_name]
    if not present:
        found = ", ".join(f"`{name}`" for name in names) or "nothing"
        raise DataError(f"{path} holds {found}; {_EXPECTED}.")
    images, labels = (by_name.get(name, name) for name in present[0])
    others = sorted({by_name[pair[0]] for pair in present} - {images})
    note = f"{path.name}: `{images}` was taken, {', '.join(f'`{name}`' for name in others)} not."
    return (images, labels), [note] if others else []


def _as_nhwc(
    path: Path, name: str, images: NDArray[Any], in_channels: int
) -> tuple[NDArray[np.uint8], list[str]]:
    """Return images as uint8 (N, H, W, C), and a note if they were rearranged.

    Raises:
        DataError: They are no images with `in_channels` channels.
    """
    given, notes = images.shape, []
    is_whole = images.dtype.kind in "iu" and images.size > 0 and images.ndim in (3, 4)
    if is_whole and images.dtype != np.uint8 and images.min() >= 0 and images.max() <= 255:
        images = images.astype(np.uint8)
    dimensions = (3, 4) if in_channels == 1 else (4,)
    if images.dtype == np.uint8 and images.ndim == 3 and given[2] > 4 and in_channels > 1:
        raise DataError(
            f"{path}: `{name}` is {given}, grey images; the network's input has {in_channels} "
            "channels.",
            remedy="Repeat the grey channel, or build the network with --in-channels 1.",
        )
    if images.dtype != np.uint8 or images.ndim not in dimensions:
        raise DataError(
            f"{path}: `{name}` is {images.dtype} {given}; {_EXPECTED}.",
            remedy="Save pixels from 0 to 255 as uint8; mean and std are subtracted later.",
        )
    if 0 in given:
        raise DataError(f"{path} has no images: `{name}` is {given}.")
    if images.ndim == 3:
        images = images[..., None]  # grey images without a channel axis
    if images.shape[3] != in_channels and images.shape[1] == in_channels:
        images = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        notes.append(f"{path.name}: `{name}` is (N, C, H, W) and was rearranged.")
    if images.shape[3] != in_channels:
        raise DataError(
            f"{path}: `{name}` is {given}, (N, H, W, C) with {images.shape[3]} channels; "
            f"the network's input has {in_channels}.",
            remedy="Build the network with as many --in-channels, or convert the images.",
        )
    return images, notes
