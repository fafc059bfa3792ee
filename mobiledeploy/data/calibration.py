"""Load images from a folder, an `.npz`, or the package.

Input: a path and a network's `NetworkInfo`. Output: `CalibrationSet`. Invariant: the same files
give the same images in the same order; the set's sha256 identifies them. Memory for the inputs is
allocated once, before anything is decoded.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobiledeploy.data.arrays import inputs_of, labels_in, read_arrays
from mobiledeploy.data.folder import ImageFolder, find_images, labels_of
from mobiledeploy.data.images import SUFFIXES, ImageFile, decode_all, is_image
from mobiledeploy.data.pixels import round_to_pixels
from mobiledeploy.data.preprocess import check_preprocessing
from mobiledeploy.errors import DataError
from mobiledeploy.network import NetworkInfo
from mobiledeploy.stages import EMBEDDED, CalibrationSet, evenly_spread
from mobiledeploy.utils.files import require_images
from mobiledeploy.utils.memory import free_bytes

# Calibration gains nothing beyond a few hundred images. Of more than these, as many are taken.
_MOST_FOR_CALIBRATION = 1000
_MOST_BYTES_FOR_CALIBRATION = 2 << 30
_MEMORY_SHARE = 0.8  # of the free memory that images may fill


def load_calibration(
    source: Path,
    info: NetworkInfo,
    *,
    samples: int | None = None,
    for_calibration: bool = False,
) -> CalibrationSet:
    """Load images for a network from a folder or an `.npz`.

    Args:
        source: A folder (images at any depth, in the order of their paths; see `folder.labels_of`
            for labels) or an `.npz` (see `arrays`).
        info: The network; gives input size, preprocessing (an `.npz` is not cropped) and classes.
        samples: Number of images to take, evenly spread over the ordered set; None takes all.
        for_calibration: Whether the images are for calibration, which needs no labels and not
            thousands of images: invalid labels are left out, and of more than 1000 images 1000 are
            taken, each with a note.

    Raises:
        DataError: There are no images, fewer than `samples`, one that cannot be read, or more than
            fit into memory.
        UsageError: The preprocessing does not fit the network.
    """
    check_preprocessing(info.preprocessing, info.input.channels)
    require_images(source)
    if source.is_dir():
        return _from_folder(source, info, samples, for_calibration=for_calibration)
    if source.suffix.lower() != ".npz":
        raise DataError(
            f"{source} is neither a folder nor an .npz.",
            remedy="Pass a folder of images, or an .npz with `images`, uint8 (N, H, W, C).",
        )
    return _from_arrays(source, info, samples, for_calibration=for_calibration)


def embedded_calibration(
    info: NetworkInfo,
    samples: int | None = None,
) -> CalibrationSet:
    """Load the images bundled with the package; nothing is downloaded.

    Args:
        info: The network; gives input size and preprocessing.
        samples: Number of images to take, evenly spread; None takes all.

    Raises:
        DataError: The package has no images, or fewer than `samples`.
        UsageError: The preprocessing does not fit the network.
    """
    check_preprocessing(info.preprocessing, info.input.channels)
    folder = resources.files("mobiledeploy.data") / "embedded"
    entries = folder.iterdir() if folder.is_dir() else ()
    found = sorted(entry.name for entry in entries if is_image(entry.name))
    if not found:
        raise DataError(
            "This installation has no bundled calibration images.",
            remedy="Pass images of your own with --calib-data.",
        )
    files = [ImageFile(name, folder / name) for name in found]
    chosen = [files[i] for i in spread_indices(len(files), samples, "The bundled set")]
    return _from_files(chosen, EMBEDDED, info)


def _from_folder(
    source: Path, info: NetworkInfo, samples: int | None, *, for_calibration: bool
) -> CalibrationSet:
    """Load the images below a folder."""
    found = find_images(source)
    if not found.paths:
        raise DataError(
            " ".join((f"There are no images in {source}.", *found.notes)),
            remedy="Pass a folder of images, or an .npz with `images`. Image files end in "
            f"{', '.join(SUFFIXES)}.",
        )
    chosen, notes = _choose(len(found.paths), samples, source, info, for_calibration)
    labels, about_labels = _folder_labels(found, chosen, info, for_calibration=for_calibration)
    files = [ImageFile(found.names[i], found.paths[i]) for i in chosen]
    loaded = _from_files(files, _unambiguous(source), info)
    return replace(loaded, labels=labels, notes=(*found.notes, *notes, *about_labels))


def _folder_labels(
    found: ImageFolder, chosen: Sequence[int], info: NetworkInfo, *, for_calibration: bool
) -> tuple[tuple[int, ...] | None, tuple[str, ...]]:
    """Return the labels of the chosen images, and notes.

    Raises:
        DataError: The labels are invalid, and the images are not for calibration.
    """
    try:
        labels, notes = labels_of(found, chosen, info.label_count, info.labels)
    except DataError as error:
        if not for_calibration:
            raise
        return None, (_without_labels(error),)
    return None if labels is None else tuple(labels), notes


def _without_labels(error: DataError) -> str:
    return f"Calibration goes on without labels: {error.message}"


def _unambiguous(folder: Path) -> str:
    """Return a folder's path, spelt so that it differs from `EMBEDDED`."""
    return str(folder) if str(folder) != EMBEDDED else f"./{folder}"


def _from_files(files: Sequence[ImageFile], source: str, info: NetworkInfo) -> CalibrationSet:
    """Decode image files into a set."""
    images = _allocate(len(files), info, source)
    hashes = decode_all(files, info.preprocessing, info.input.size, images)
    return CalibrationSet(
        images=images,
        source=source,
        sha256=_digest(hashes),
        names=tuple(file.name for file in files),
    )


def _from_arrays(
    source: Path, info: NetworkInfo, samples: int | None, *, for_calibration: bool
) -> CalibrationSet:
    """Load the images of an `.npz`."""
    arrays = read_arrays(source, info.input.channels, for_calibration=for_calibration)
    chosen, notes = _choose(len(arrays.images), samples, source, info, for_calibration)
    labels = None
    try:
        labels = labels_in(source, arrays, chosen, info.label_count)
    except DataError as error:
        if not for_calibration:
            raise
        notes.append(_without_labels(error))
    pixels = np.ascontiguousarray(arrays.images[chosen])
    images = _allocate(len(chosen), info, str(source))
    inputs_of(pixels, info.preprocessing, info.input.size, images)
    if info.input.format.is_pixels:
        round_to_pixels(images, info.preprocessing)
    return CalibrationSet(
        images=images,
        source=str(source),
        sha256=_digest([hashlib.sha256(image.tobytes()).hexdigest() for image in pixels]),
        labels=labels,
        names=tuple(f"{source.name}[{index}]" for index in chosen),
        notes=(*arrays.notes, *notes),
    )


def _choose(
    count: int, samples: int | None, source: Path, info: NetworkInfo, for_calibration: bool
) -> tuple[list[int], list[str]]:
    """Return the indices of the images to take, and a note if not all were asked for by number."""
    most = min(_MOST_FOR_CALIBRATION, _MOST_BYTES_FOR_CALIBRATION // _bytes_per_image(info))
    if samples is None and for_calibration and count > most:
        note = (
            f"{source} has {count} images: {most} of them were taken, evenly spread. 200 are "
            "plenty for calibration; --calib-samples sets the number."
        )
        return spread_indices(count, most, str(source)), [note]
    return spread_indices(count, samples, str(source)), []


def _bytes_per_image(info: NetworkInfo) -> int:
    return 4 * math.prod(info.input.shape)


def _allocate(count: int, info: NetworkInfo, source: str) -> NDArray[np.float32]:
    """Return memory for so many inputs, (N, C, H, W).

    Raises:
        DataError: There is not enough.
    """
    needed, free = count * _bytes_per_image(info), free_bytes()
    have = "" if free is None else f"; {free / 1e9:.1f} GB are free"
    refusal = DataError(
        f"{count} images of {source} take {needed / 1e9:.1f} GB of memory{have}.",
        remedy="Take fewer of them, evenly spread: --samples 1000, or --calib-samples 200.",
    )
    if free is not None and needed > _MEMORY_SHARE * free:
        raise refusal
    try:
        return np.empty((count, *info.input.shape[1:]), np.float32)
    except MemoryError as error:
        raise refusal from error


def spread_indices(count: int, samples: int | None, source: str) -> list[int]:
    """Return the indices of `samples` of `count` images, evenly spread, beginning with the first.

    Evenly spread, because sets are often ordered by class.

    Raises:
        DataError: fewer than one image, or more than there are, are asked for.
    """
    if samples is None:
        return list(range(count))
    if samples < 1:
        raise DataError(
            f"The number of samples is {samples}; at least 1 is needed.",
            remedy="Pass a larger number, or leave it out to take all images.",
        )
    if samples > count:
        raise DataError(
            f"{source} has {count} images, fewer than the {samples} samples requested.",
            remedy="Request fewer samples, or leave the number out to take all images.",
        )
    return evenly_spread(count, samples)


def _digest(hashes: Sequence[str]) -> str:
    """Return the sha256 of an ordered list of digests, each in hex on its own line."""
    return hashlib.sha256("".join(f"{value}\n" for value in hashes).encode()).hexdigest()
