"""Read checkpoint files without running anything in them.

Input: a path. Output: `FileContent` (nested dictionaries, tensors). Invariant: no code of the file
is executed; "damaged" is said of damaged files only.
"""

from __future__ import annotations

import argparse
import collections
import pathlib
import pickle
import re
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch

from mobiledeploy.checkpoints.unpickle import SuspiciousGlobalError, load_with_stand_ins
from mobiledeploy.errors import WeightsError
from mobiledeploy.utils.files import require_regular
from mobiledeploy.utils.quiet import quietly

SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".pth.tar", ".safetensors")

_NUMPY_REBUILDERS = [
    (getattr(np._core.multiarray, name), f"numpy.{core}.multiarray.{name}")  # type: ignore[attr-defined]  # noqa: SLF001 - what numpy's pickles name
    for name in ("scalar", "_reconstruct")
    for core in ("core", "_core")  # before and since numpy 2
]
# Plain data that training scripts save beside the weights (arguments, scores, paths): rebuilding it
# runs nothing but these constructors.
_PLAIN_DATA: list[Any] = [
    argparse.Namespace,
    collections.defaultdict,
    *(dict, list, set, int, float),
    *_NUMPY_REBUILDERS,
    np.ndarray,
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int32, np.int64, np.bool_)),
    pathlib.PosixPath,
    pathlib.WindowsPath,
]
_UNREADABLE = (
    *(RuntimeError, OSError, EOFError, ValueError, KeyError, IndexError, TypeError),
    *(AttributeError, AssertionError, MemoryError, OverflowError, ImportError),
    *(pickle.UnpicklingError, RecursionError, NotImplementedError),
    *(zlib.error, struct.error, SyntaxError),
)  # torch's reader has no exception of its own for a damaged file
_UNSUPPORTED_GLOBAL = re.compile(r"(?:GLOBAL|global:? GLOBAL|class) ([\w.]+)")
_EXPANSION_LIMIT = 2  # torch.save does not compress: an archive is as large as its content

_ZIP = b"PK"
_LEGACY = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save's magic number before version 1.6
_SAFETENSORS_HEADER_LIMIT = 100_000_000  # bytes; the format's own limit
_KINDS = {  # by the first bytes
    b"version https://git-lfs": ("a Git LFS pointer", "Fetch the file itself: git lfs pull."),
    b"\x89HDF": ("an HDF5 file, as Keras writes", "Convert it to PyTorch's names first."),
    b"\x1f\x8b": ("compressed by gzip", "Unpack it: gunzip."),
    b"\x93NUMPY": ("a NumPy array", "Pass the checkpoint of the network."),
    b"<": ("an HTML or XML text", "Download the file itself, not the page about it."),
    b"{": ("a JSON text", "Pass the file of the weights."),
}
_NOT_A_CHECKPOINT = "Pass a file that torch.save or safetensors wrote."


@dataclass(frozen=True, slots=True)
class FileContent:
    """Content of a checkpoint file.

    Attributes:
        content: Nested dictionaries, lists and tensors.
        stand_ins: Names of the classes whose objects were not read.
    """

    content: object
    stand_ins: tuple[str, ...] = ()


def read_checkpoint(path: Path) -> FileContent:
    """Read a checkpoint file.

    Raises:
        WeightsError: The file does not exist, is empty, damaged, of another kind, or suspicious.
    """
    try:
        _check_name_and_size(path)
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be opened: {error.strerror}.",
            remedy="Check the path and its permissions.",
        ) from error
    if head.startswith(_ZIP):
        return _read_torch(path, is_intact=_check_archive(path))
    if _LEGACY in head[:32]:
        return _read_torch(path, is_intact=False)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _SAFETENSORS_HEADER_LIMIT:
        return FileContent(_read_safetensors(path))
    raise _of_another_kind(path, head)


def _check_name_and_size(path: Path) -> None:
    """Raise WeightsError for files that name and size exclude."""
    if path.is_dir():
        inside = sorted(file for file in path.iterdir() if file.name.lower().endswith(SUFFIXES))
        like = f"for example {inside[0]}" if inside else f"one of *{', *'.join(SUFFIXES)}"
        raise WeightsError(
            f"{path} is a folder; expected a checkpoint file.",
            remedy=f"Pass the path of the file itself: {like}.",
        )
    if not path.exists():
        raise WeightsError(
            f"There is no checkpoint {path}.",
            remedy="Check the path, or pass imagenet, random or a published name such as"
            " timm/mobilenetv2_050.lamb_in1k.",
        )
    require_regular(path, WeightsError)
    if not path.name.lower().endswith(SUFFIXES):
        raise WeightsError(
            f"{path.name} does not have the name of a checkpoint; expected one of "
            f"{', '.join(SUFFIXES)}.",
            remedy="Rename the file if it is one. ONNX and TensorFlow files are not supported.",
        )
    if path.stat().st_size == 0:
        raise WeightsError(f"{path} is empty.", remedy="Copy or download it again.")


def _check_archive(path: Path) -> bool:
    """Check that torch.save wrote an archive and that its checksums match.

    torch reads tensors without comparing their checksums. `torch.serialization.set_crc32_options`
    can switch the checksums off: then all of them are 0.

    Returns:
        Whether there are checksums.

    Raises:
        WeightsError: The archive is damaged, compressed, or of another program.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            expanded = sum(entry.file_size for entry in entries)
            size = path.stat().st_size
            if expanded > _EXPANSION_LIMIT * size:
                raise WeightsError(
                    f"{path} has {size} bytes and would take {expanded} in memory: it is "
                    "compressed, which torch.save does not do.",
                    remedy="Get the checkpoint from another source.",
                )
            has_checksums = any(entry.CRC for entry in entries)
            damaged = archive.testzip() if has_checksums else None
    except (zipfile.BadZipFile, zlib.error, *_UNREADABLE) as error:
        raise _damaged(path, error) from error
    if damaged is not None:
        raise _damaged(path, f"the checksum of {damaged} does not match")
    names = {entry.filename.partition("/")[2] for entry in entries}
    if "constants.pkl" in names:
        raise WeightsError(
            f"{path} is a TorchScript program, not a checkpoint.",
            remedy="Save its tensors: torch.save(torch.jit.load(path).state_dict(), new_path).",
        )
    if "data.pkl" not in names:
        raise WeightsError(
            f"{path} is a zip archive that torch.save did not write.", remedy=_NOT_A_CHECKPOINT
        )
    return has_checksums


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file: names and tensors."""
    try:
        return dict(safetensors.torch.load_file(path))
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _read_torch(path: Path, *, is_intact: bool) -> FileContent:
    """Read a file of torch.save: by torch's own safe reader, otherwise with stand-ins.

    Raises:
        WeightsError: The file cannot be read; it is not called damaged if its checksums match.
    """
    try:
        with path.open("rb") as file, quietly(), torch.serialization.safe_globals(_PLAIN_DATA):
            return FileContent(torch.load(file, map_location="cpu", weights_only=True))
    except _UNREADABLE as error:
        first = error
    try:
        return FileContent(*load_with_stand_ins(path))
    except SuspiciousGlobalError as error:
        raise needs_code(path, (str(error),)) from error
    except _UNREADABLE as error:
        if wanted := _UNSUPPORTED_GLOBAL.search(str(first)):
            raise needs_code(path, (wanted[1],)) from error
        if is_intact:
            raise WeightsError(
                f"{path} is not damaged, but could not be read ({_first_line(first)}).",
                remedy="Save the state dict alone: torch.save(model.state_dict(), new_path).",
            ) from error
        raise _damaged(path, first) from error


def needs_code(path: Path, names: tuple[str, ...]) -> WeightsError:
    """Return the error for a file that is of no use without the code of the objects in it."""
    return WeightsError(
        f"{path} can only be read by running code that it names ({', '.join(names)}); expected "
        "tensors and plain data.",
        remedy="If you trust it, convert it where its code is installed: "
        "m = torch.load(path, weights_only=False); torch.save(m.state_dict(), new_path), "
        "or save m['state_dict'] if it is a dictionary.",
    )


def _of_another_kind(path: Path, head: bytes) -> WeightsError:
    """Return the error for a file that neither torch.save nor safetensors began to write."""
    for start, (kind, remedy) in _KINDS.items():
        if head.startswith(start):
            return WeightsError(f"{path} is not a checkpoint but {kind}.", remedy=remedy)
    if head[257:262] == b"ustar":
        return WeightsError(
            f"{path} is a tar archive.", remedy="Unpack it and pass the file in it."
        )
    if len(head) < 16:  # too short for any checkpoint
        return _damaged(path, f"it has {len(head)} bytes")
    if head.startswith(pickle.PROTO):
        return WeightsError(
            f"{path} is a pickle that torch.save did not write: reading it would run code that it "
            "names; expected tensors and plain data.",
            remedy="If you trust it, convert it where its code is installed: load it with pickle, "
            "then torch.save(state_dict, new_path).",
        )
    return WeightsError(
        f"{path} is not a checkpoint: it begins with {head[:16]!r}.", remedy=_NOT_A_CHECKPOINT
    )


def _damaged(path: Path, reason: object) -> WeightsError:
    """Return the error for a damaged file."""
    return WeightsError(
        f"{path} is damaged ({_first_line(reason)}).", remedy="Copy or download it again."
    )


def _first_line(reason: object) -> str:
    """Return the first sentence of a reason; the type's name if it has no words."""
    first = str(reason).strip().split("\n")[0].split(". ")[0]
    return first if any(map(str.isalpha, first)) else type(reason).__name__
