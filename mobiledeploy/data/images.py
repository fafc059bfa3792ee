"""Image files, read and decoded.

Input: sources of bytes (a folder's files, or those inside the package). Output: float32 inputs and
the sha256 of every file, in order. Invariant: what was hashed is what was decoded.
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

# PIL raises what its decoders happen to meet (SyntaxError for a broken PNG, NotImplementedError for
# DDS), and the bomb error for what would fill the memory. A name decides nothing: any may be met.
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
    """One image: what to call it, and where its bytes are."""

    name: str
    file: Readable


@dataclass(frozen=True, slots=True)
class Decoded:
    """One image as the network takes it, (C, H, W), and its file's sha256."""

    pixels: NDArray[np.float32]
    sha256: str


def is_image(name: str) -> bool:
    """Return whether a file is an image by its name; hidden ones are nobody's data."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def decode_all(
    files: Sequence[ImageFile], preprocessing: Preprocessing, resolution: int
) -> list[Decoded]:
    """Read, hash, decode and preprocess, in order.

    Raises:
        DataError: naming the first image that cannot be read.
    """

    def decode(file: ImageFile) -> Decoded:
        return _decode(file, preprocessing, resolution)

    pool = ThreadPoolExecutor(_WORKERS)
    try:
        with quietly():  # PIL warns of odd metadata that changes no pixel
            results = pool.map(decode, files)
            return list(progress.track(results, "Reading images", total=len(files)))
    finally:
        pool.shutdown(cancel_futures=True)  # after an error nobody waits for the other images


def _decode(source: ImageFile, preprocessing: Preprocessing, resolution: int) -> Decoded:
    """Decode one image.

    Raises:
        DataError: it cannot be read, or its pixels are not what the network takes.
    """
    try:
        content = source.file.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            pixels = preprocess(image, preprocessing, resolution)
    except _UNREADABLE as error:
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "it is in no known image format" if unknown else str(error) or repr(error)
        raise DataError(
            f"Could not read the image {source.name}: {reason}",
            remedy="Remove or replace it; every image of the set has to be readable.",
        ) from error
    except DataError as error:
        raise DataError(f"{source.name}: {error.message}", remedy=error.remedy) from error
    return Decoded(pixels, hashlib.sha256(content).hexdigest())
