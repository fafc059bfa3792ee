"""The config.json that timm puts beside weights on a hub: what they are called and expect."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from mobiledeploy.errors import WeightsError
from mobiledeploy.types import Interpolation, Preprocessing

_HUB_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True, slots=True)
class HubConfig:
    """What a config.json says.

    Attributes:
        architecture: timm's name of the network and of its training.
        preprocessing: Of the weights' own evaluation.
        labels: Names of the classes, where it has them.
    """

    architecture: str
    preprocessing: Preprocessing
    labels: tuple[str, ...] = ()


def read_hub_config(checkpoint: Path) -> HubConfig | None:
    """Read timm's config.json beside a checkpoint with a hub's file name; None without one.

    Raises:
        WeightsError: it is damaged, or says something that no preprocessing can be.
    """
    path = checkpoint.with_name("config.json")
    if checkpoint.name not in _HUB_FILES or not path.is_file():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(document, Mapping) or "pretrained_cfg" not in document:
            return None
        config = document["pretrained_cfg"]
        preprocessing = Preprocessing(
            mean=tuple(float(value) for value in config["mean"]),
            std=tuple(float(value) for value in config["std"]),
            crop_pct=float(config["crop_pct"]),
            interpolation=_interpolation(config["interpolation"]),
        )
        labels = tuple(str(name) for name in document.get("label_names") or ())
        name = f"{document['architecture']}.{config.get('tag') or ''}"
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise WeightsError(
            f"{path}, which describes {checkpoint.name}, is damaged: {error!r}.",
            remedy="Copy it again, or move the checkpoint away from it.",
        ) from error
    return HubConfig(name, preprocessing, labels)


def _interpolation(name: object) -> Interpolation:
    """Return an interpolation that images can be resized with.

    Raises:
        ValueError: there is none of that name.
    """
    for interpolation in get_args(Interpolation):
        if name == interpolation:
            found: Interpolation = interpolation
            return found
    raise ValueError(f"interpolation {name!r}")
