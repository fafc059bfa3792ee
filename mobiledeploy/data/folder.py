"""Find the images of a folder and their class labels."""

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

    Links to folders are followed. A dangling link with an image's suffix is included, so that
    reading it fails with its name.

    Raises:
        DataError: A folder cannot be listed.
    """
    try:
        return sorted(_images_below(folder, frozenset()))
    except OSError as error:
        raise DataError(
            f"Could not look for images in {error.filename or folder}: {error.strerror}.",
            remedy="Make every folder of the set readable; folders whose name begins with a dot"
            " are skipped.",
        ) from error


def _images_below(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    """Yield the images below a folder; `above` are its resolved parent folders.

    A link to one of the parents is a loop and is skipped. Two links to one folder count twice.
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
    """Return the class index of each image, or None if the folder has no labels.

    Labels come from ``labels.csv`` (columns ``file``, relative to the folder, and ``class_index``)
    or from one subfolder per class, sorted by name. Subfolders count only if there are as many as
    classes: for a subset of the classes the indices are unknown.

    Args:
        folder: Folder of the images.
        names: Paths of the images relative to `folder`, with "/".
        num_classes: Number of classes of the network; 0 for a feature extractor.

    Raises:
        DataError: labels.csv cannot be read, lacks an image, or holds an invalid class.
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
                    remedy="Add the line, or remove labels.csv if the classes are unknown.",
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
