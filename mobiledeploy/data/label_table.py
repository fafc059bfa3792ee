"""Read labels.csv: a file name and a class per line, as spreadsheets and scripts write it.

Input: the file and the names of the images. Output: `LabelTable`. Invariant: an image's class comes
from the one line that names it, whatever the spelling of its path.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mobiledeploy.errors import DataError
from mobiledeploy.utils.files import reason_of

LABELS_FILE = "labels.csv"

_DELIMITERS = (",", ";", "\t", "|")
_FILE_COLUMNS = (
    *("file", "filename", "file_name", "path", "filepath", "file_path", "image", "image_name"),
    *("image_path", "img", "image_id"),
)
_CLASS_COLUMNS = (
    *("class_index", "class_idx", "class_id", "classid", "label_index", "label_id", "category_id"),
    *("label", "class", "class_name", "target", "category", "y", "index"),
)
_COLUMNS = (_FILE_COLUMNS, _CLASS_COLUMNS)
_EXPECTED = "expected file and class_index"
_REMEDY = "Begin the file with the line file,class_index; paths are relative to the folder."


@dataclass(frozen=True, slots=True)
class LabelTable:
    """Class indices by image.

    Attributes:
        path: Path of the table.
        by_path: Class index by normalised path.
        by_name: Class index by file name, where it is unique in the table and in the folder.
        invalid: What is wrong with a line, by normalised path.
        notes: What was assumed, one sentence each.
    """

    path: Path
    by_path: Mapping[str, int]
    by_name: Mapping[str, int]
    invalid: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def index_of(self, name: str) -> int:
        """Return the class index of an image.

        Args:
            name: Path of the image relative to the folder, with "/".

        Raises:
            DataError: No line names the image, or its class is invalid.
        """
        key = _normalized(name)
        for lookup, entry in ((self.by_path, key), (self.by_name, _file_name(key))):
            if entry in lookup:
                return lookup[entry]
        if key in self.invalid:
            raise DataError(f"{self.path}, {self.invalid[key]}")
        first = next(iter(self.by_path), "")
        example = f"; its first line is for {first}" if first else ""
        raise DataError(
            f"{self.path} has no line for {name}{example}.",
            remedy="Add the line, or remove labels.csv if the classes are unknown.",
        )


def read_label_table(
    path: Path, names: Sequence[str], num_classes: int, class_names: Sequence[str] = ()
) -> LabelTable:
    """Read labels.csv.

    It accepts a byte order mark, UTF-16, Windows' encoding; commas, semicolons, tabs and vertical
    bars with or without blanks; paths with backslashes or "./"; usual names of the columns, or no
    header; classes as indices or as names.

    Args:
        path: Path of the table.
        names: Paths of the folder's images relative to the folder, with "/".
        num_classes: Number of classes of the network.
        class_names: Names of the classes, if they are known.

    Raises:
        DataError: The table cannot be read or has no columns for file and class.
    """
    rows, file_column, class_column = _rows(path, names)
    texts = {row[file_column]: row[class_column].strip() for _, row in rows}
    indices, notes = _class_indices(list(texts.values()), num_classes, class_names)
    by_path: dict[str, int] = {}
    invalid: dict[str, str] = {}
    for line, row in rows:
        key = _normalized(row[file_column], path.parent)
        text = row[class_column].strip()
        index = indices.get(text)
        if index is None:
            invalid[key] = (
                f"line {line}: class_index is {text!r}; the network has {num_classes} classes, "
                "counted from 0."
            )
        else:
            by_path[key] = index
    return LabelTable(path, by_path, _unique_names(by_path, names), invalid, tuple(notes))


def _rows(path: Path, names: Sequence[str]) -> tuple[list[tuple[int, list[str]]], int, int]:
    """Return the numbered lines of a table, and the columns of file and class.

    Raises:
        DataError: The table cannot be read or has no such columns.
    """
    lines = _text(path).splitlines()
    skipped = 1 if lines and lines[0].lower().startswith("sep=") else 0  # Excel's own first line
    header: list[str] = []
    for delimiter in _DELIMITERS:
        try:
            table = list(csv.reader(lines[skipped:], delimiter=delimiter, skipinitialspace=True))
        except csv.Error as error:
            raise DataError(f"Could not read {path}: {error}", remedy=_REMEDY) from error
        if not table:
            break
        header = [_column(cell) for cell in table[0]]
        columns = [next((c for c in known if c in header), None) for known in _COLUMNS]
        if None not in columns:
            file_column, class_column = (header.index(str(column)) for column in columns)
            start = 1
        elif len(header) == 2 and _normalized(table[0][0]) in map(_normalized, names):
            file_column, class_column, start = 0, 1, 0  # no header
        else:
            continue
        width = max(file_column, class_column) + 1
        rows = [
            (number, [*row, *[""] * width])
            for number, row in enumerate(table[start:], start=skipped + start + 1)
            if any(cell.strip() for cell in row)
        ]
        return rows, file_column, class_column
    first = csv.reader(lines[skipped : skipped + 1])
    found = ", ".join(_visible(cell) for cell in next(first, []))
    raise DataError(f"{path} has the columns {found or 'none'}; {_EXPECTED}.", remedy=_REMEDY)


def _text(path: Path) -> str:
    """Return the text of a table, in UTF-8, UTF-16 with a byte order mark, or Windows-1252.

    Raises:
        DataError: The file cannot be read or is no text.
    """
    try:
        content = path.read_bytes()
        if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return content.decode("utf-16")
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError:
            return content.decode("cp1252")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"Could not read {path}: {reason_of(error)}.", remedy=_REMEDY) from error


def _class_indices(
    texts: Sequence[str], num_classes: int, class_names: Sequence[str]
) -> tuple[dict[str, int], list[str]]:
    """Return the class index of every valid text, and notes.

    Numbers are indices. Other texts are names of classes: the network's own, or, if there are
    exactly as many names as classes, their alphabetical order as in folders of classes.
    """
    numbers = {text: _index(text, num_classes) for text in texts}
    indices = {text: index for text, index in numbers.items() if index is not None}
    names = sorted({text for text in texts if text and _number(text) is None})
    if not names:
        return indices, []
    known = {name.casefold(): index for index, name in enumerate(class_names)}
    if known and all(name.casefold() in known for name in names):
        return indices | {name: known[name.casefold()] for name in names}, []
    if len(names) == num_classes and not indices:
        note = f"The class names of {LABELS_FILE} were numbered in alphabetical order."
        return {name: index for index, name in enumerate(names)}, [note]
    return indices, []


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"[+-]?\d+(\.\d*)?", text) else None


def _index(text: str, num_classes: int) -> int | None:
    """Return a class index; some tools write it as 3.0."""
    number = _number(text)
    is_index = number is not None and number.is_integer() and 0 <= number < num_classes
    return int(number) if number is not None and is_index else None


def _normalized(path: str, folder: Path | None = None) -> str:
    """Return one spelling of a path: "/" between parts, no "./", composed characters."""
    text = unicodedata.normalize("NFC", path.strip().strip('"')).replace("\\", "/")
    if folder is not None and (root := f"{folder.resolve().as_posix()}/") and text.startswith(root):
        text = text.removeprefix(root)
    return "/".join(part for part in text.split("/") if part not in ("", "."))


def _file_name(path: str) -> str:
    return PurePosixPath(path).name.casefold()


def _unique_names(by_path: Mapping[str, int], names: Sequence[str]) -> dict[str, int]:
    """Return the class index by file name for the names that occur once on either side."""
    in_folder = [_file_name(_normalized(name)) for name in names]
    in_table = [_file_name(path) for path in by_path]
    once = _occurring_once(in_table) & _occurring_once(in_folder)
    return {
        name: by_path[path] for path, name in zip(by_path, in_table, strict=True) if name in once
    }


def _occurring_once(items: Sequence[str]) -> set[str]:
    seen: set[str] = set()
    twice: set[str] = set()
    for item in items:
        (twice if item in seen else seen).add(item)
    return seen - twice


def _column(cell: str) -> str:
    """Return the name of a column in lower case with underscores."""
    return re.sub(r"[\s-]+", "_", cell.strip().strip('"').lower())


def _visible(cell: str) -> str:
    """Return a cell in which invisible characters can be seen."""
    return cell if cell.isprintable() and cell.isascii() else ascii(cell)
