"""Checkpoint files, read without running anything in them.

Input: a path. Output: what the file holds (nested dictionaries, tensors). Invariant: no code of the
file is executed, and a damaged file is an error of ours.
"""

from __future__ import annotations

import argparse
import collections
import pathlib
import pickle
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch

from mobiledeploy.checkpoints.dialects import Dialect, HubConfig, read_hub_config, recognize
from mobiledeploy.checkpoints.layers import Layer, layers_of
from mobiledeploy.checkpoints.unwrap import unwrap
from mobiledeploy.errors import WeightsError
from mobiledeploy.models.spec import Family
from mobiledeploy.utils.files import sha256_of
from mobiledeploy.utils.quiet import quietly

SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".pth.tar", ".safetensors")

_NUMPY_REBUILDERS = [
    (getattr(np._core.multiarray, name), f"numpy.{core}.multiarray.{name}")  # type: ignore[attr-defined]  # noqa: SLF001 - what numpy's pickles name
    for name in ("scalar", "_reconstruct")
    for core in ("core", "_core")  # before and since numpy 2
]
# Plain data that training scripts put beside the weights (arguments, scores, paths): rebuilding it
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
_NEEDS_CODE = re.compile(r"(?:GLOBAL|global:? GLOBAL|class) ([\w.]+)")
_EXPANSION_LIMIT = 2  # torch.save does not compress: an archive is no smaller than its content


def read_checkpoint(path: Path) -> object:
    """Read a checkpoint file.

    Raises:
        WeightsError: it does not exist, is empty, damaged, of another kind, or needs code.
    """
    try:
        _refuse_what_is_no_checkpoint(path)
        with path.open("rb"):
            pass
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be opened: {error.strerror}.",
            remedy="Check the path and who may read it.",
        ) from error
    return _read_safetensors(path) if path.suffix.lower() == ".safetensors" else _read_torch(path)


def _refuse_what_is_no_checkpoint(path: Path) -> None:
    """Raise WeightsError for what a look at the file's name and size tells."""
    if path.is_dir():
        inside = sorted(file for file in path.iterdir() if file.name.lower().endswith(SUFFIXES))
        like = f"for example {inside[0]}" if inside else f"one of *{', *'.join(SUFFIXES)}"
        raise WeightsError(
            f"{path} is a folder; expected a checkpoint file.",
            remedy=f"Give the path of the file itself: {like}.",
        )
    if not path.exists():
        raise WeightsError(
            f"There is no checkpoint {path}.",
            remedy="Check the path; other words than `imagenet` and `random` are paths.",
        )
    if not path.name.lower().endswith(SUFFIXES):
        raise WeightsError(
            f"{path.name} is not a checkpoint by its name; expected one of {', '.join(SUFFIXES)}.",
            remedy="Rename it, if it is one; ONNX and TensorFlow files cannot be read.",
        )
    if path.stat().st_size == 0:
        raise WeightsError(f"{path} is empty.", remedy="Copy or download it again.")


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a .safetensors file: names and tensors."""
    try:
        return dict(safetensors.torch.load_file(path))
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _read_torch(path: Path) -> object:
    """Read what torch.save wrote, data only."""
    _refuse_inflation(path)
    try:
        with quietly(), torch.serialization.safe_globals(_PLAIN_DATA):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refused_pickle(path, error) from error
    except (
        *(RuntimeError, OSError, EOFError, ValueError, KeyError, IndexError, TypeError),
        *(AttributeError, UnicodeDecodeError, AssertionError, MemoryError, OverflowError),
    ) as error:  # torch's reader has no exception of its own for a damaged file
        if "TorchScript" in str(error):
            raise WeightsError(
                f"{path} is a TorchScript program, not a checkpoint.",
                remedy="Save its tensors: torch.save(torch.jit.load(path).state_dict(), new_path).",
            ) from error
        raise _damaged(path, error) from error


def _refuse_inflation(path: Path) -> None:
    """Raise WeightsError for an archive that would grow beyond its own size in memory."""
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            expanded = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
        raise _damaged(path, error) from error
    size = path.stat().st_size
    if expanded > _EXPANSION_LIMIT * size:
        raise WeightsError(
            f"{path} has {size} bytes and would become {expanded} in memory: torch.save does not "
            "compress, so it did not write this file.",
            remedy="Get the checkpoint from somewhere else.",
        )


def _refused_pickle(path: Path, error: pickle.UnpicklingError) -> WeightsError:
    """Say whether a pickle is damaged or wants to run code."""
    wanted = _NEEDS_CODE.search(str(error))
    with path.open("rb") as handle:
        is_bare_pickle = handle.read(1) == pickle.PROTO
    if wanted:
        what = f"can only be read by running code that it names ({wanted[1]})"
    elif is_bare_pickle:
        what = "is a pickle that torch.save did not write: reading it would run code that it names"
    else:
        return _damaged(path, "it is not in torch.save's format")
    return WeightsError(
        f"{path} {what}; expected tensors and plain data.",
        remedy="If you trust it, convert it where its code is installed: "
        "m = torch.load(path, weights_only=False); torch.save(m.state_dict(), new_path), "
        "or save m['state_dict'] if it is a dictionary.",
    )


def _damaged(path: Path, reason: object) -> WeightsError:
    """Return the error for a file that is not what it should be."""
    first = str(reason).strip().split("\n")[0].split(". ")[0]
    if not any(map(str.isalpha, first)):  # a KeyError's text is the key
        first = type(reason).__name__
    return WeightsError(
        f"{path} could not be read as a checkpoint; it is damaged or of another kind ({first}).",
        remedy="Copy or download it again.",
    )


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A file's layers, in the order of the file.

    Attributes:
        path: Of the file.
        sha256: Of the file.
        layers: Every tensor that belongs to a network.
        dialect: The naming scheme.
        architecture: What the checkpoint calls its network; its file's name otherwise.
        config: What lies beside it, where it comes from a hub.
        notes: What was unwrapped.
    """

    path: Path
    sha256: str
    layers: tuple[Layer, ...]
    dialect: Dialect
    architecture: str
    config: HubConfig | None
    notes: tuple[str, ...]


def open_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint file and recognise its dialect.

    Raises:
        WeightsError: it cannot be read, or holds no network.
    """
    state = unwrap(read_checkpoint(path), path)
    layers = tuple(layers_of(state.tensors))
    if not any(layer.is_map for layer in layers):
        raise WeightsError(
            f"{path} holds no convolution and no linear layer; expected a MobileNet.",
            remedy="Give the checkpoint of a whole network.",
        )
    config = read_hub_config(path)
    architecture = config.architecture if config and config.architecture else path.name
    return Checkpoint(
        path=path,
        sha256=sha256_of(path),
        layers=layers,
        dialect=recognize(layers, architecture),
        architecture=architecture,
        config=config,
        notes=state.notes,
    )


def dialect_name(dialect: Dialect, family: Family, *, by_name: bool) -> str:
    """Return the name of a dialect, now that it is known whether the names are our own.

    Ours are torchvision's for V2 and V3, which torchvision has.
    """
    if not by_name:
        return dialect.name
    return "mobiledeploy" if family == "v1" else "torchvision"
