"""Class names, in the order of the network's outputs."""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from mobiledeploy.errors import DataError
from mobiledeploy.utils.files import reason_of, require_regular

IMAGENET = "imagenet"
"""Stands for the names of ImageNet-1k's classes, unless a file has this name."""


def load_labels(path: Path, num_classes: int) -> tuple[str, ...]:
    """Return one name per class.

    Args:
        path: A text file (UTF-8) with one name per line, or `IMAGENET`.
        num_classes: Number of classes of the network.

    Raises:
        DataError: The file cannot be read, or has another number of names.
    """
    require_regular(path, DataError)
    try:
        text = (_imagenet() if _is_imagenet(path) else path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"Could not read the labels {path}: {reason_of(error)}.",
            remedy=f"Pass a text file in UTF-8 with one name per line, or {IMAGENET}.",
        ) from error
    labels = tuple(line.strip() for line in text.rstrip().splitlines())
    if "" in labels:
        raise DataError(
            f"{path}, line {labels.index('') + 1} is empty; expected a class name in every line.",
            remedy="Fill in the name, or remove the line.",
        )
    if len(labels) != num_classes:
        raise DataError(
            f"{path} has {len(labels)} names; the network has {num_classes} classes.",
            remedy="Write one line per class, in the order of the network's outputs.",
        )
    return labels


def _is_imagenet(path: Path) -> bool:
    return str(path) == IMAGENET and not path.exists()


def _imagenet() -> Traversable:
    """Return the file of the names of ImageNet-1k's classes."""
    return resources.files("mobiledeploy.data") / "imagenet" / "labels.txt"
