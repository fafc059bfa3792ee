"""Read labelled images batch by batch, in memory that does not grow with their number.

Input: a folder, tar shards or an `.npz`, and a network's `NetworkInfo`. Output: batches of inputs
with labels. Batches are decoded by threads while the caller runs the previous ones. The pixels of
an `.npz` are loaded at once, as 8-bit values.
"""

from __future__ import annotations

import hashlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mobiledeploy.data.arrays import inputs_of, labels_in, read_arrays
from mobiledeploy.data.calibration import spread_indices
from mobiledeploy.data.folder import find_images, labels_of
from mobiledeploy.data.images import ImageFile, decode
from mobiledeploy.data.pixels import round_to_pixels
from mobiledeploy.data.preprocess import check_preprocessing
from mobiledeploy.data.shards import find_shards, open_shards
from mobiledeploy.errors import DataError
from mobiledeploy.utils.files import require_regular
from mobiledeploy.utils.progress import step
from mobiledeploy.utils.quiet import quietly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from mobiledeploy.network import NetworkInfo

    Images = NDArray[np.float32]

_WORKERS = 2  # PIL decodes and resizes outside the interpreter lock
_AHEAD = 4  # batches that are decoded before they are needed


@dataclass(frozen=True, slots=True)
class Batch:
    """Some images of a stream.

    Attributes:
        inputs: (N, C, H, W).
        labels: The class index of each.
    """

    inputs: Images
    labels: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageStream:
    """A set of labelled images that is read part by part.

    Attributes:
        source: Where they come from.
        labels: The class index of each.
        sha256: sha256 over the names, sizes and labels of all images.
        class_names: Names of the classes; empty if unknown.
        notes: What was left aside or assumed, one sentence each.
        read: Returns the inputs, (N, C, H, W), of images with these indices.
    """

    source: str
    labels: tuple[int, ...]
    sha256: str
    class_names: tuple[str, ...]
    notes: tuple[str, ...]
    read: Callable[[Sequence[int]], Images]

    def batches(self, start: int, stop: int, size: int) -> Iterator[Batch]:
        """Yield the images from `start` up to `stop` in order, `size` at a time.

        Raises:
            DataError: an image cannot be read.
        """
        firsts = iter(range(start, stop, size))
        pool = ThreadPoolExecutor(_WORKERS)
        waiting: deque[Future[Batch]] = deque()

        def read(first: int) -> Batch:
            indices = range(first, min(first + size, stop))
            return Batch(self.read(indices), self.labels[first : indices.stop])

        try:
            with quietly():  # PIL warns about metadata that does not affect the pixels
                for first in firsts:
                    waiting.append(pool.submit(read, first))
                    if len(waiting) > _AHEAD:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def open_stream(source: Path, info: NetworkInfo, samples: int | None = None) -> ImageStream:
    """Find labelled images for a network.

    Args:
        source: A folder with labels (see `folder.labels_of`), a `.tar` or a folder of them (see
            `shards`), or an `.npz` with labels.
        info: The network; gives input size, preprocessing and classes.
        samples: Number of images to take, evenly spread; None takes all.

    Raises:
        DataError: there are no images, fewer than `samples`, or no labels.
        UsageError: the preprocessing does not fit the network.
    """
    check_preprocessing(info.preprocessing, info.input.channels)
    require_regular(source, DataError)
    if find_shards(source):
        return _of_shards(source, info, samples)
    if source.is_dir():
        return _of_folder(source, info, samples)
    if source.suffix.lower() != ".npz" or not source.is_file():
        raise DataError(
            f"{source} is neither a folder, a .tar nor an .npz.",
            remedy="Pass a folder of images, tar shards, or an .npz with `images` and `labels`.",
        )
    return _of_arrays(source, info, samples)


def _of_folder(source: Path, info: NetworkInfo, samples: int | None) -> ImageStream:
    found = find_images(source)
    chosen = _chosen(len(found.paths), samples, source, found.notes)
    labels, notes = labels_of(found, chosen, info.label_count, info.labels)
    if labels is None:
        raise _without_labels(source, (*found.notes, *notes))
    paths = [found.paths[index] for index in chosen]
    files = [ImageFile(found.names[i], path) for i, path in zip(chosen, paths, strict=True)]
    sizes = [path.stat().st_size for path in paths]
    return _of_files(source, files, sizes, labels, (*found.notes, *notes), info)


def _of_shards(source: Path, info: NetworkInfo, samples: int | None) -> ImageStream:
    with step("Listing the images of the shards"):
        found = open_shards(source)
    chosen = _chosen(len(found.images), samples, source, found.notes)
    labels, notes = found.labels_of(chosen, info.label_count, info.labels)
    if labels is None:
        raise _without_labels(source, (*found.notes, *notes))
    names = found.names
    files = [ImageFile(names[index], found.images[index]) for index in chosen]
    sizes = [found.images[index].size for index in chosen]
    return _of_files(source, files, sizes, labels, (*found.notes, *notes), info)


def _of_files(
    source: Path,
    files: Sequence[ImageFile],
    sizes: Sequence[int],
    labels: Sequence[int],
    notes: Sequence[str],
    info: NetworkInfo,
) -> ImageStream:
    def read(indices: Sequence[int]) -> Images:
        size = info.input.size
        return np.stack([decode(files[i], info.preprocessing, size)[0] for i in indices])

    entries = (f"{file.name} {size}" for file, size in zip(files, sizes, strict=True))
    return ImageStream(
        source=str(source),
        labels=tuple(labels),
        sha256=_digest(entries, labels),
        class_names=info.labels,
        notes=tuple(notes),
        read=read,
    )


def _of_arrays(source: Path, info: NetworkInfo, samples: int | None) -> ImageStream:
    arrays = read_arrays(source, info.input.channels)
    chosen = _chosen(len(arrays.images), samples, source, arrays.notes)
    labels = labels_in(source, arrays, chosen, info.label_count)
    if labels is None:
        raise _without_labels(source, arrays.notes)

    def read(indices: Sequence[int]) -> Images:
        pixels = np.ascontiguousarray(arrays.images[[chosen[index] for index in indices]])
        inputs = np.empty((len(pixels), *info.input.shape[1:]), np.float32)
        inputs_of(pixels, info.preprocessing, info.input.size, inputs)
        if info.input.format.is_pixels:
            round_to_pixels(inputs, info.preprocessing)
        return inputs

    entries = (hashlib.sha256(arrays.images[index].tobytes()).hexdigest() for index in chosen)
    return ImageStream(
        source=str(source),
        labels=tuple(labels),
        sha256=_digest(entries, labels),
        class_names=info.labels,
        notes=arrays.notes,
        read=read,
    )


def _chosen(count: int, samples: int | None, source: Path, notes: Sequence[str]) -> list[int]:
    """Return the indices of the images to take.

    Raises:
        DataError: there are none, or fewer than `samples`.
    """
    if not count:
        raise DataError(" ".join((f"There are no images in {source}.", *notes)))
    return spread_indices(count, samples, str(source))


def _without_labels(source: Path, notes: Sequence[str]) -> DataError:
    return DataError(
        " ".join((f"The images of {source} have no labels.", *notes)),
        remedy="Put the images of each class into a folder of their own, or add a labels.csv with"
        " the columns file and class_index.",
    )


def _digest(entries: Iterator[str], labels: Sequence[int]) -> str:
    digest = hashlib.sha256()
    for entry, label in zip(entries, labels, strict=True):
        digest.update(f"{entry} {label}\n".encode())
    return digest.hexdigest()
