"""Read labelled images from tar shards without unpacking them.

Input: a `.tar`, or a folder of them. Output: `Shards`. In WebDataset's layout `key.jpg` has its
class index in `key.cls`; otherwise the folders inside the shards are the classes, as in a folder of
images. An index of the members is built once; images are read by their offsets, in any order.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from mobiledeploy.data.folder import ImageFolder, labels_of
from mobiledeploy.data.images import is_image
from mobiledeploy.errors import DataError
from mobiledeploy.utils.files import reason_of, require_regular

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_SUFFIX = ".tar"
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_CLASS = ".cls"


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside a shard.

    Attributes:
        shard: The shard.
        name: The name in the shard.
        offset: Where the content begins, in bytes.
        size: Its length in bytes.
    """

    shard: Path
    name: str
    offset: int
    size: int

    @property
    def key(self) -> tuple[Path, str]:
        """Return what the members of one sample share: the name up to its first dot."""
        name = PurePosixPath(self.name)
        return self.shard, str(name.with_name(name.name.partition(".")[0]))

    def read_bytes(self) -> bytes:
        """Return the content.

        Raises:
            OSError: the shard cannot be read, or is shorter than its index says.
        """
        with self.shard.open("rb") as handle:
            handle.seek(self.offset)
            content = handle.read(self.size)
        if len(content) < self.size:
            raise OSError(f"{self.shard} is cut off")
        return content


@dataclass(frozen=True, slots=True)
class Shards:
    """The images of shards, in the order of the shards and of their members.

    Attributes:
        source: The shard, or the folder of shards.
        images: The image members.
        classes: Members that hold a class index, by key.
        notes: What was left aside, one sentence each.
    """

    source: Path
    images: tuple[Member, ...]
    classes: dict[tuple[Path, str], Member]
    notes: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """Return the name of every image, with that of its shard in front."""
        return [f"{image.shard.name}/{image.name}" for image in self.images]

    def labels_of(
        self, chosen: Sequence[int], num_classes: int, class_names: Sequence[str]
    ) -> tuple[list[int] | None, tuple[str, ...]]:
        """Return the class index of the chosen images, and notes; None if there are no labels.

        Args:
            chosen: Indices of the images whose labels are needed.
            num_classes: Number of classes of the network.
            class_names: Names of the classes, if they are known.

        Raises:
            DataError: a class index is missing or invalid.
        """
        if not self.classes:
            names = tuple(image.name for image in self.images)
            folder = ImageFolder(self.source, (), names)
            return labels_of(folder, chosen, num_classes, class_names)
        return [self._label(self.images[index], num_classes) for index in chosen], ()

    def _label(self, image: Member, num_classes: int) -> int:
        member = self.classes.get(image.key)
        found = "" if member is None else member.read_bytes().decode(errors="replace").strip()
        if not found.isascii() or not found.isdigit() or int(found) >= num_classes:
            raise DataError(
                f"The class of {image.name} in {image.shard} is {found[:40]!r}, expected a number"
                f" below {num_classes}.",
                remedy=f"Write it to {image.key[1]}{_CLASS}.",
            )
        return int(found)


def find_shards(source: Path) -> list[Path]:
    """Return the shards: the file itself, or those directly in a folder; empty without any.

    Raises:
        DataError: the file is a compressed shard.
    """
    if source.name.lower().endswith(_COMPRESSED):
        raise DataError(
            f"{source} is compressed, so that its images cannot be read one by one.",
            remedy="Decompress it: images are compressed already, and the file hardly grows.",
        )
    if source.is_dir():
        return sorted(path for path in source.iterdir() if _is_shard(path))
    return [source] if _is_shard(source) else []


def open_shards(source: Path) -> Shards:
    """List the images of shards.

    Args:
        source: A `.tar`, or a folder of them.

    Raises:
        DataError: a shard is damaged.
    """
    members = [member for shard in find_shards(source) for member in _members(shard)]
    images = tuple(member for member in members if is_image(PurePosixPath(member.name).name))
    classes = {member.key: member for member in members if member.name.endswith(_CLASS)}
    rest = len(members) - len(images) - len(classes)
    were = "member was" if rest == 1 else "members were"
    note = f"{rest} {were} left aside: neither images nor {_CLASS}."
    return Shards(source, images, classes, (note,) if rest else ())


def _is_shard(path: Path) -> bool:
    return path.suffix.lower() == _SUFFIX and not path.name.startswith(".") and path.is_file()


def _members(shard: Path) -> Iterator[Member]:
    """Yield the files of a shard in the order of their names.

    Raises:
        DataError: it is damaged.
    """
    require_regular(shard, DataError)
    try:
        with tarfile.open(shard, "r:") as archive:
            files = [each for each in archive if each.isreg() and not each.issparse()]
            if archive.offset + tarfile.BLOCKSIZE > shard.stat().st_size:  # no end mark follows
                raise tarfile.ReadError("it is cut off")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(
            f"Could not read the shard {shard}: {reason_of(error)}.",
            remedy="Download or write it again.",
        ) from error
    for each in sorted(files, key=lambda file: file.name):
        name = each.name.removeprefix("./")
        if not any(part.startswith(".") for part in PurePosixPath(name).parts):
            yield Member(shard, name, each.offset_data, each.size)
