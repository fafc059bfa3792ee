"""Read and decode image files.

Input: files of a folder or of the package. Output: float32 inputs, (N, C, H, W), and the sha256 of
every file, in order. Invariant: the bytes that were hashed are the bytes that were decoded. A
photograph is taken as its pixels lie in the file: the EXIF orientation is ignored, as torchvision
and TensorFlow ignore it in training.
"""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from mobiledeploy.data.preprocess import preprocess
from mobiledeploy.errors import DataError
from mobiledeploy.network import ImageSize, Preprocessing
from mobiledeploy.utils import progress
from mobiledeploy.utils.quiet import quietly

SUFFIXES = (
    *(".apng", ".avif", ".bmp", ".dib", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm"),
    *(".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
# Formats with a magic number, by which files with another suffix are recognised.
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
_WORKERS = 2  # PIL decodes and resizes outside the interpreter lock

# PIL has no common exception: SyntaxError for a broken PNG, NotImplementedError for DDS, and a bomb
# error for huge images. PIL looks at the content, so any of them may occur for any suffix.
_UNREADABLE = (
    *(OSError, ValueError, SyntaxError, RuntimeError, EOFError, MemoryError, struct.error),
    *(ArithmeticError, AttributeError, LookupError, TypeError, Image.DecompressionBombError),
)


class Readable(Protocol):
    """A file on disk (`Path`) or inside a package (`Traversable`)."""

    def read_bytes(self) -> bytes:
        """Return the whole content."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image's name and its file."""

    name: str
    file: Readable


def is_image(name: str) -> bool:
    """Return whether a file name has an image's suffix and is not hidden.

    Only suffixes of formats that this Pillow reads count; AVIF depends on how it was built.
    """
    return name.lower().endswith(_readable_suffixes()) and not name.startswith(".")


@cache
def _readable_suffixes() -> tuple[str, ...]:
    formats = Image.registered_extensions()
    return tuple(suffix for suffix in SUFFIXES if formats.get(suffix) in Image.OPEN)


@cache
def _readable_formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def looks_like_image(path: Path) -> bool:
    """Return whether Pillow recognises the content of a file, whatever its suffix."""
    try:
        with quietly(), Image.open(path, formats=_readable_formats()):
            return True
    except _UNREADABLE:
        return False


def decode_all(
    files: Sequence[ImageFile],
    preprocessing: Preprocessing,
    resolution: ImageSize,
    into: NDArray[np.float32],
) -> list[str]:
    """Read, hash, decode and preprocess image files, in order.

    Args:
        files: The image files.
        preprocessing: How an image becomes an input.
        resolution: Size of the input in pixels.
        into: Receives the inputs, (N, C, H, W).

    Returns:
        The sha256 of every file.

    Raises:
        DataError: An image cannot be read; the text names the first.
    """

    def decode_into(index: int) -> str:
        into[index], digest = decode(files[index], preprocessing, resolution)
        return digest

    pool = ThreadPoolExecutor(_WORKERS)
    try:
        with quietly():  # PIL warns about metadata that does not affect the pixels
            results = pool.map(decode_into, range(len(files)))
            return list(progress.track(results, "Reading images", total=len(files)))
    finally:
        pool.shutdown(cancel_futures=True)  # after an error, do not decode the remaining images


def decode(
    source: ImageFile, preprocessing: Preprocessing, resolution: ImageSize
) -> tuple[NDArray[np.float32], str]:
    """Decode and preprocess one image; return it, (C, H, W), and its file's sha256.

    Raises:
        DataError: The image cannot be read, or its pixel type is not supported.
    """
    try:
        content = source.file.read_bytes()
        with Image.open(io.BytesIO(content)) as image:  # of an animation, the first frame
            pixels = preprocess(image, preprocessing, resolution)
    except _UNREADABLE as error:
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "its format is not an image format" if unknown else str(error) or repr(error)
        raise DataError(
            f"Could not read the image {source.name}: {reason}",
            remedy="Remove or replace it; every image of the set has to be readable.",
        ) from error
    except DataError as error:
        raise DataError(f"{source.name}: {error.message}", remedy=error.remedy) from error
    return pixels, hashlib.sha256(content).hexdigest()
