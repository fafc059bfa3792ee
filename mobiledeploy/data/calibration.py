"""Load images from a folder, an `.npz`, or the package.

Input: a path and a network's `NetworkInfo`. Output: `CalibrationSet`. Invariant: the same files
give the same images in the same order; the set's sha256 identifies them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np

from mobiledeploy.data.arrays import inputs_of, read_arrays
from mobiledeploy.data.folder import find_images, labels_of
from mobiledeploy.data.images import SUFFIXES, ImageFile, decode_all, is_image
from mobiledeploy.data.preprocess import check_preprocessing
from mobiledeploy.errors import DataError
from mobiledeploy.network import EMBEDDED, CalibrationSet, NetworkInfo, evenly_spread


def load_calibration(
    source: Path,
    info: NetworkInfo,
    *,
    samples: int | None = None,
) -> CalibrationSet:
    """Load images for a network from a folder or an `.npz`.

    Args:
        source: A folder (images at any depth, in the order of their paths; see `folder.labels_of`
            for labels) or an `.npz` (see `arrays`).
        info: The network; gives input size, preprocessing (an `.npz` is not cropped) and classes.
        samples: Number of images to take, evenly spread over the ordered set; None takes all.

    Raises:
        DataError: There are no images, fewer than `samples`, or one that cannot be read.
        UsageError: The preprocessing does not fit the network.
    """
    check_preprocessing(info.preprocessing, info.input.channels)
    if source.is_dir():
        return _from_folder(source, info, samples)
    if not source.exists():
        raise DataError(
            f"There is no file or folder {source}.",
            remedy="Pass the path of a folder of images, or of an .npz with `images`.",
        )
    if source.suffix.lower() != ".npz":
        raise DataError(
            f"{source} is neither a folder nor an .npz.",
            remedy="Pass a folder of images, or an .npz with `images`, uint8 (N, H, W, C).",
        )
    return _from_arrays(source, info, samples)


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
    chosen = [files[i] for i in _spread(len(files), samples, "The bundled set")]
    return _from_files(chosen, EMBEDDED, info)


def _from_folder(
    source: Path,
    info: NetworkInfo,
    samples: int | None,
) -> CalibrationSet:
    """Load the images below a folder."""
    paths = find_images(source)
    if not paths:
        raise DataError(
            f"There are no images in {source}: no file ends in {', '.join(SUFFIXES)}.",
            remedy="Pass a folder of images, or an .npz with `images`.",
        )
    chosen = _spread(len(paths), samples, str(source))
    names = [path.relative_to(source).as_posix() for path in paths]
    labels = labels_of(source, names, info.classes)
    files = [ImageFile(names[i], paths[i]) for i in chosen]
    return _from_files(
        files,
        _unambiguous(source),
        info,
        labels=None if labels is None else tuple(labels[i] for i in chosen),
    )


def _unambiguous(folder: Path) -> str:
    """Return a folder's path, spelt so that it differs from `EMBEDDED`."""
    return str(folder) if str(folder) != EMBEDDED else f"./{folder}"


def _from_files(
    files: Sequence[ImageFile],
    source: str,
    info: NetworkInfo,
    *,
    labels: tuple[int, ...] | None = None,
) -> CalibrationSet:
    """Decode image files into a set."""
    decoded = decode_all(files, info.preprocessing, info.input.height)
    return CalibrationSet(
        images=np.stack([image.pixels for image in decoded]),
        source=source,
        sha256=_digest([image.sha256 for image in decoded]),
        labels=labels,
        names=tuple(file.name for file in files),
    )


def _from_arrays(
    source: Path,
    info: NetworkInfo,
    samples: int | None,
) -> CalibrationSet:
    """Load the images of an `.npz`."""
    arrays = read_arrays(source, info.input.channels)
    chosen = _spread(len(arrays.images), samples, str(source))
    images = np.ascontiguousarray(arrays.images[chosen])
    labels = None
    if arrays.labels is not None and info.classes > 0:
        labels = tuple(int(label) for label in arrays.labels[chosen])
        for index, label in zip(chosen, labels, strict=True):
            if not 0 <= label < info.classes:
                raise DataError(
                    f"{source}: image {index} has label {label}; "
                    f"the network has {info.classes} classes, counted from 0.",
                    remedy="Pass images of this network's classes, or leave `labels` out.",
                )
    return CalibrationSet(
        images=inputs_of(images, info.preprocessing, info.input.height),
        source=str(source),
        sha256=_digest([hashlib.sha256(image.tobytes()).hexdigest() for image in images]),
        labels=labels,
        names=tuple(f"{source.name}[{index}]" for index in chosen),
    )


def _spread(count: int, samples: int | None, source: str) -> list[int]:
    """Return the indices of `samples` of `count` images, evenly spread, beginning with the first.

    Evenly spread, because sets are often ordered by class.
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
