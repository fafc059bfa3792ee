"""Class names, in the order of the network's outputs."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from mobiledeploy.errors import DataError

IMAGENET_CLASSES = 1000


def load_labels(path: Path | None, num_classes: int) -> tuple[str, ...]:
    """Return one name per class.

    Args:
        path: A text file (UTF-8) with one name per line. None returns ImageNet's names for 1000
            classes, and no names for any other number.
        num_classes: Number of classes of the network.

    Raises:
        DataError: The file cannot be read, or has another number of names.
    """
    if path is None:
        return _imagenet() if num_classes == IMAGENET_CLASSES else ()
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"Could not read the labels {path}: {error}",
            remedy="Pass a text file in UTF-8 with one name per line.",
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


def _imagenet() -> tuple[str, ...]:
    """Return the names of ImageNet-1k's classes."""
    file = resources.files("mobiledeploy.data") / "imagenet" / "labels.txt"
    return tuple(file.read_text(encoding="utf-8").splitlines())
