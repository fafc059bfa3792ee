"""A checkpoint, read and understood as far as it goes without a network to hold against it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mobiledeploy.errors import WeightsError
from mobiledeploy.files import sha256_of
from mobiledeploy.types import Family
from mobiledeploy.weights.dialects import Dialect, recognize
from mobiledeploy.weights.hub_config import HubConfig, read_hub_config
from mobiledeploy.weights.layers import Layer, layers_of
from mobiledeploy.weights.read import read_checkpoint
from mobiledeploy.weights.unwrap import unwrap


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
