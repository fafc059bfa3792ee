"""Read and decode image files.

Input: files of a folder or of the package. Output: float32 inputs and the sha256 of every file, in
order. Invariant: the bytes that were hashed are the bytes that were decoded.
"""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from mobiledeploy.data.preprocess import preprocess
from mobiledeploy.errors import DataError
from mobiledeploy.network import Preprocessing
from mobiledeploy.utils import progress
from mobiledeploy.utils.quiet import quietly

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
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


@dataclass(frozen=True, slots=True)
class Decoded:
    """One preprocessed image, (C, H, W), and its file's sha256."""

    pixels: NDArray[np.float32]
    sha256: str


def is_image(name: str) -> bool:
    """Return whether a file name has an image's suffix and is not hidden."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def decode_all(
    files: Sequence[ImageFile], preprocessing: Preprocessing, resolution: int
) -> list[Decoded]:
    """Read, hash, decode and preprocess image files, in order.

    Raises:
        DataError: An image cannot be read; the text names the first.
    """

    def decode(file: ImageFile) -> Decoded:
        return _decode(file, preprocessing, resolution)

    pool = ThreadPoolExecutor(_WORKERS)
    try:
        with quietly():  # PIL warns about metadata that does not affect the pixels
            results = pool.map(decode, files)
            return list(progress.track(results, "Reading images", total=len(files)))
    finally:
        pool.shutdown(cancel_futures=True)  # after an error, do not decode the remaining images


def _decode(source: ImageFile, preprocessing: Preprocessing, resolution: int) -> Decoded:
    """Decode and preprocess one image.

    Raises:
        DataError: The image cannot be read, or its pixel type is not supported.
    """
    try:
        content = source.file.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
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
    return Decoded(pixels, hashlib.sha256(content).hexdigest())
