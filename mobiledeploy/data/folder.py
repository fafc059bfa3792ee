"""Find the images of a folder and their class labels.

Input: a folder. Output: `ImageFolder`, and a class index per image where the folder tells it.
Invariant: every file that Pillow reads is an image; the others are counted in a note.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mobiledeploy.data.images import is_image, looks_like_image
from mobiledeploy.data.label_table import LABELS_FILE, read_label_table
from mobiledeploy.errors import DataError
from mobiledeploy.utils.files import require_regular

_SPLITS = frozenset(
    {
        *("train", "training", "val", "valid", "validation", "test", "testing", "dev", "eval"),
        *("calib", "calibration", "holdout"),
    }
)
# Folders of target images for segmentation, left aside beside a folder of the images themselves.
_IMAGE_FOLDERS = frozenset({"images", "image", "imgs", "img", "jpegimages"})
_TARGET_FOLDERS = frozenset(
    {
        *("masks", "mask", "annotations", "labels", "label", "gt", "ground_truth", "groundtruth"),
        *("segmentation", "segmentations", "segmentationclass", "segmentationobject", "trimaps"),
        *("targets", "target"),
    }
)
_SYSTEM_FOLDERS = frozenset({"@eadir", "__macosx", "$recycle.bin"})  # thumbnails and leftovers
_NEVER_COUNTED = frozenset({LABELS_FILE, "thumbs.db", "desktop.ini"})
_SHOWN = 6  # suffixes that a note lists


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """The images of a folder, in the order of their paths.

    Attributes:
        root: The folder.
        paths: Paths of the images.
        names: Their paths relative to the root, with "/".
        notes: What was left aside, one sentence each.
    """

    root: Path
    paths: tuple[Path, ...]
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def find_images(folder: Path) -> ImageFolder:
    """Find the images below a folder, at any depth.

    Links to folders are followed. A dangling link with an image's suffix is included, so that
    reading it fails with its name. Files with another suffix are images if Pillow recognises their
    content. Hidden files are skipped, and so is a folder of masks beside a folder of images.

    Raises:
        DataError: A folder cannot be listed, or a pipe, a socket or a device has an image's suffix.
    """
    left_aside: list[Path] = []
    targets: list[Path] = []
    try:
        paths = sorted(_images_below(folder, frozenset(), left_aside, targets))
    except OSError as error:
        raise DataError(
            f"Could not look for images in {error.filename or folder}: {error.strerror}.",
            remedy="Make every folder of the set readable; folders whose name begins with a dot"
            " are skipped.",
        ) from error
    notes = [_counted(left_aside)] if left_aside else []
    if targets:
        listed = ", ".join(sorted({path.relative_to(folder).as_posix() for path in targets}))
        notes.append(f"The folder {listed} was left aside: it holds masks or annotations.")
    names = tuple(path.relative_to(folder).as_posix() for path in paths)
    return ImageFolder(folder, tuple(paths), names, tuple(notes))


def _images_below(
    folder: Path, above: frozenset[Path], left_aside: list[Path], targets: list[Path]
) -> Iterator[Path]:
    """Yield the images below a folder; `above` are its resolved parent folders.

    A link to one of the parents is a loop and is skipped. Two links to one folder count twice.
    """
    here = folder.resolve()
    if here in above:
        return
    entries = [path for path in folder.iterdir() if not _is_hidden(path.name)]
    folders = [path for path in entries if path.is_dir()]
    has_images = any(path.name.lower() in _IMAGE_FOLDERS for path in folders)
    for path in entries:
        if path in folders:
            if has_images and path.name.lower() in _TARGET_FOLDERS:
                targets.append(path)
            else:
                yield from _images_below(path, above | {here}, left_aside, targets)
        elif is_image(path.name):
            require_regular(path, DataError)
            yield path
        elif path.is_file():
            if looks_like_image(path):
                yield path
            elif path.name.lower() not in _NEVER_COUNTED:
                left_aside.append(path)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM_FOLDERS


def _counted(paths: Sequence[Path]) -> str:
    """Return a sentence that counts files by suffix."""
    suffixes = Counter(path.suffix.lower() or "no suffix" for path in paths).most_common()
    shown = ", ".join(f"{count} {suffix}" for suffix, count in suffixes[:_SHOWN])
    rest = " and others" if len(suffixes) > _SHOWN else ""
    were = "file was" if len(paths) == 1 else "files were"
    return f"{len(paths)} {were} left aside, because Pillow does not read them ({shown}{rest})."


def labels_of(
    images: ImageFolder, chosen: Sequence[int], num_classes: int, class_names: Sequence[str] = ()
) -> tuple[list[int] | None, tuple[str, ...]]:
    """Return the class index of the chosen images, and notes; None if the folder has no labels.

    Labels come from ``labels.csv`` (see `label_table`) or from one subfolder per class, sorted by
    name. Subfolders count only if there are as many as classes, and if each holds images itself:
    for a subset of the classes the indices are unknown, and train/ and val/ are no classes.

    Args:
        images: The images of a folder.
        chosen: Indices of the images whose labels are needed.
        num_classes: Number of classes of the network; 0 for a feature extractor.
        class_names: Names of the classes, if they are known.

    Raises:
        DataError: labels.csv cannot be read, lacks an image, or holds an invalid class.
    """
    if num_classes == 0:
        return None, ()
    table = images.root / LABELS_FILE
    require_regular(table, DataError)
    if table.is_file():
        known = read_label_table(table, images.names, num_classes, class_names)
        return [known.index_of(images.names[i]) for i in chosen], known.notes
    classes, note = _class_folders(images, num_classes)
    if classes is None:
        return None, (note,) if note else ()
    return [classes.index(_first_part(images.names[i])) for i in chosen], ()


def _class_folders(images: ImageFolder, num_classes: int) -> tuple[list[str] | None, str]:
    """Return the class folders by name, or None and the reason if it deserves a note."""
    names = [name for name in images.names if "/" in name]
    if len(names) < len(images.names):
        return None, ""
    folders = sorted({_first_part(name) for name in names})
    direct = {_first_part(name) for name in names if name.count("/") == 1}
    if len(folders) > 1 and all(folder.lower() in _SPLITS for folder in folders):
        return None, (
            f"{images.root} holds the splits {', '.join(folders)}: images of all of them were "
            f"taken, without labels. For labels, pass one of them, such as "
            f"{images.root / folders[-1]}."
        )
    if len(folders) == num_classes and direct == set(folders):
        return folders, ""
    inner = {PurePosixPath(name).parts[1] for name in names if name.count("/") > 1}
    if len(folders) == 1 and len(inner) == num_classes:
        return None, (f"The class folders lie deeper: for labels, pass {images.root / folders[0]}.")
    if len(folders) == num_classes:
        return None, (
            f"The subfolders of {images.root} hold folders, not images: they were not taken for "
            "classes."
        )
    return None, ""


def _first_part(name: str) -> str:
    return name.partition("/")[0]
