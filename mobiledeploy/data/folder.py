"""Which images a folder holds, and of which class they are."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from mobiledeploy.data.images import is_image
from mobiledeploy.errors import DataError

LABELS_FILE = "labels.csv"
_COLUMNS = ("file", "class_index")


def find_images(folder: Path) -> list[Path]:
    """Return the images below a folder, at any depth, in the order of their paths.

    Links to folders are followed. A link to nothing that has an image's name is among them: it is
    an image that cannot be read, and whoever reads it says so.

    Raises:
        DataError: a folder cannot be looked into.
    """
    try:
        return sorted(_images_below(folder, frozenset()))
    except OSError as error:
        raise DataError(
            f"Could not look for images in {error.filename or folder}: {error.strerror}.",
            remedy="Every folder of the set has to be readable; one whose name begins with a dot"
            " is left alone.",
        ) from error


def _images_below(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    """Yield the images below a folder; `above` are the folders that led to it, links resolved.

    A link back to one of those is a loop. Two links to the same folder are two folders.
    """
    here = folder.resolve()
    if here in above:
        return
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _images_below(path, above | {here})
        elif is_image(path.name) and (path.is_file() or not path.exists()):
            yield path


def labels_of(folder: Path, names: Sequence[str], num_classes: int) -> list[int] | None:
    """Return the class index of each image, or None where the folder does not tell.

    It tells through ``labels.csv`` (columns ``file``, relative to the folder, and
    ``class_index``), or through one subfolder per class, in the classes' order by name. Subfolders
    count only where there are as many as classes: a part of the classes has no known indices.

    Args:
        folder: Where the images are.
        names: Their paths relative to `folder`, with "/".
        num_classes: Of the network; 0 has no use for labels.

    Raises:
        DataError: labels.csv cannot be read, misses an image, or holds an impossible class.
    """
    if num_classes == 0:
        return None
    table = folder / LABELS_FILE
    if table.is_file():
        known = _read_table(table, num_classes)
        for name in names:
            if name not in known:
                raise DataError(
                    f"{table} has no line for {name}.",
                    remedy="Add it, or remove labels.csv if the classes are not known.",
                )
        return [known[name] for name in names]
    classes = [PurePosixPath(name).parts[0] for name in names if "/" in name]
    indices = {label: index for index, label in enumerate(sorted(set(classes)))}
    if len(classes) < len(names) or len(indices) != num_classes:
        return None
    return [indices[label] for label in classes]


def _read_table(table: Path, num_classes: int) -> dict[str, int]:
    """Read labels.csv: file -> class index."""
    try:
        with table.open(newline="", encoding="utf-8") as handle:
            reader = csv.DictReader(handle)
            columns = tuple(reader.fieldnames or ())
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"Could not read {table}: {error}") from error
    if not set(_COLUMNS) <= set(columns):
        raise DataError(
            f"{table} has the columns {', '.join(columns) or 'none'}; "
            f"expected {' and '.join(_COLUMNS)}."
        )
    known: dict[str, int] = {}
    for line, row in enumerate(rows, start=2):
        text = row["class_index"] or ""
        if not text.strip().isdecimal() or int(text) >= num_classes:
            raise DataError(
                f"{table}, line {line}: class_index is {text!r}; "
                f"the network has {num_classes} classes, counted from 0."
            )
        known[row["file"]] = int(text)
    return known
