"""Naming schemes of checkpoints (dialects), and the conventions that each implies.

Input: the layers of a checkpoint. Output: the layers in execution order, and the properties of the
network that tensors do not show: padding, epsilon, activation, preprocessing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from mobiledeploy.checkpoints.layers import Layer
from mobiledeploy.errors import WeightsError
from mobiledeploy.models.spec import Family
from mobiledeploy.network import Interpolation, Preprocessing

Order = Callable[[Sequence[Layer]], list[Layer]]


@dataclass(frozen=True, slots=True)
class Dialect:
    """A naming scheme.

    Attributes:
        name: Name of the library, or "sequential".
        orders: Functions that sort layers into execution order, the likeliest first.
        same_padding: Whether its networks pad as TensorFlow does.
        norm_eps: BatchNorm's epsilon of its networks; None is the family's default.
    """

    name: str
    orders: tuple[Order, ...]
    same_padding: bool = False
    norm_eps: float | None = None


def as_in_file(layers: Sequence[Layer]) -> list[Layer]:
    """Keep the file's order: torch.save writes layers in the order of their definition."""
    return list(layers)


def natural(layers: Sequence[Layer]) -> list[Layer]:
    """Sort by name: numbers by value, stem before body before classifier.

    For safetensors files, which sort names as strings ("features.10" before "features.2").
    """
    return sorted(
        layers, key=lambda layer: [_component_rank(part) for part in layer.name.split(".")]
    )


_ROLES = {
    **dict.fromkeys(("stem", "conv_stem", "first_conv"), 0),
    **dict.fromkeys(("conv_1x1", "conv_last", "conv_head", "last_conv"), 2),
    **dict.fromkeys(("classifier", "fc", "linear", "head", "output"), 3),
}
_CONV_OR_NORM = re.compile(r"(conv|bn|norm)(\d*)")


def _component_rank(part: str) -> tuple[int, int, int, str]:
    """Rank one component of a name: by role, by number, convolution before BatchNorm."""
    if part.isdecimal():
        return (1, int(part), 0, "")
    if match := _CONV_OR_NORM.fullmatch(part):
        number = int(match[2] or 2)
        return (0 if number == 1 else 2, number, match[1] != "conv", "")
    return (_ROLES.get(part, 1), 0, 0, part)


def _timm(layers: Sequence[Layer]) -> list[Layer]:
    """Sort timm's layers (conv_stem, bn1, blocks.{stage}.{block}.*, conv_head, bn2, classifier).

    In an inverted residual `conv_pw` expands and comes first. In a depthwise separable block, which
    has no `conv_pwl`, it projects and comes last.
    """
    names = {layer.name for layer in layers}
    top = {"conv_stem": 0, "bn1": 1, "conv_head": 3, "bn2": 4, "classifier": 5}
    inverted = ("conv_pw", "bn1", "conv_dw", "bn2", "se.conv_reduce", "se.conv_expand", "conv_pwl")
    separable = ("conv", "conv_dw", "bn1", "se.conv_reduce", "se.conv_expand", "conv_pw", "bn2")

    def rank(layer: Layer) -> tuple[int, ...]:
        if not (match := re.fullmatch(r"(blocks\.(\d+)\.(\d+))\.(.+)", layer.name)):
            return (top.get(layer.name, len(top)),)
        block, stage, number, part = match.groups()
        parts = inverted if f"{block}.conv_pwl" in names else separable
        position = parts.index(part) if part in parts else len(parts)
        return (2, int(stage), int(number), position)

    return sorted(layers, key=rank)


def _transformers(layers: Sequence[Layer]) -> list[Layer]:
    """Sort transformers' layers (conv_stem, layer.{i}, conv_1x1, classifier)."""
    order = (
        *("conv_stem", "layer", "conv_1x1", "classifier"),
        *("first_conv", "expand_1x1", "conv_3x3", "reduce_1x1"),  # within the stem or a block
        *("convolution", "normalization"),
    )

    def rank(layer: Layer) -> list[int]:
        parts = re.sub(r"^mobilenet_v[12]\.", "", layer.name).split(".")
        return [
            int(part) if part.isdecimal() else order.index(part) if part in order else len(order)
            for part in parts
        ]

    return sorted(layers, key=rank)


TIMM = Dialect("timm", (_timm,), norm_eps=1e-5)
TIMM_TF = Dialect("timm, ported from TensorFlow", (_timm,), same_padding=True, norm_eps=1e-3)
TRANSFORMERS = Dialect("transformers", (_transformers,), same_padding=True, norm_eps=1e-3)
SEQUENTIAL = Dialect("sequential", (as_in_file, natural))


# the base model has no "mobilenet_v1." in front of its names
_TRANSFORMERS_STEM = re.compile(
    r"(mobilenet_v[12]\.)?conv_stem\.(convolution|first_conv\.convolution)"
)


def recognize(layers: Sequence[Layer], architecture: str) -> Dialect:
    """Recognise a dialect by its names; `SEQUENTIAL` if they are of no known library.

    Args:
        layers: Layers of the checkpoint.
        architecture: Name of the network or the file. timm's own networks and those that it ported
            from TensorFlow have equal tensors and differ in this name (``tf_mobilenetv3_...``).
    """
    names = {layer.name for layer in layers}
    if "conv_stem" in names:
        return TIMM_TF if re.search(r"(^|[^a-z])tf_", architecture) else TIMM
    if any(_TRANSFORMERS_STEM.fullmatch(name) for name in names):
        return TRANSFORMERS
    return SEQUENTIAL


_HALF = (0.5, 0.5, 0.5)  # maps pixels to [-1, 1], as TensorFlow's networks expect
_LATER_TORCHVISION = re.compile(r"mobilenet_v2-7ebf99e0|mobilenet_v3_large-5c1a4163")


def implied_options(
    dialect: Dialect,
    family: Family,
    layers: Sequence[Layer],
    *,
    default_eps: float | None,
    config: HubConfig | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Return the architecture options that a dialect implies, by name, and a note on each.

    Args:
        dialect: Dialect of a checkpoint whose names are not the network's own.
        family: Family of its network.
        layers: Layers of the checkpoint.
        default_eps: BatchNorm's epsilon of the network as built; None if it has no BatchNorm.
        config: The hub's description of the weights; it overrides the dialect.
    """
    options: dict[str, Any] = {}
    notes = []
    same_padding, norm_eps, source = dialect.same_padding, dialect.norm_eps, dialect.name
    if config is not None and config.norm_eps is not None:
        norm_eps, source = config.norm_eps, "config.json"
    if config is not None and config.same_padding is not None:
        same_padding = config.same_padding
    if same_padding:
        options["padding"] = "same"
        notes.append("Convolutions pad as in TensorFlow, where the weights come from.")
    if default_eps is not None and norm_eps not in (None, default_eps):
        options["norm_eps"] = norm_eps
        notes.append(f"BatchNorm's epsilon is {norm_eps:g}, as in {source}.")
    if dialect is TIMM and family.startswith("v3"):
        notes.append(
            "timm's V3 ported from TensorFlow have the same tensors, but another padding and "
            "epsilon: only a name with tf_ tells them apart. If this is one of them, set "
            "`padding: same` and `norm_eps: 0.001`."
        )
    if dialect is SEQUENTIAL:
        notes.append(
            "Layers were paired in the order of their definition. Strides, padding and epsilon are "
            "assumed as published: tensors do not show them. If the weights come from TensorFlow, "
            "set `padding: same` and `norm_eps: 0.001`."
        )
        if family == "v1":
            relu = any(re.search(r"(^|\.)model\.\d+\.\d+$", layer.name) for layer in layers)
            if relu:  # the implementation with these names has ReLU
                options["activation"] = "relu"
            notes.append(
                f"The activation is assumed to be {'ReLU' if relu else 'ReLU6'}: tensors do not "
                "show it. The architecture option `activation` changes it."
            )
    return options, notes


def implied_preprocessing(
    dialect: Dialect, family: Family, architecture: str, *, by_name: bool
) -> Preprocessing | None:
    """Return the preprocessing that a dialect's RGB weights expect; None if it is unknown.

    Args:
        dialect: Dialect of the checkpoint.
        family: Family of its network.
        architecture: Name of the network or the file: training recipes differ in their
            preprocessing, and only this name tells which one was used.
        by_name: Whether the names are the network's own: torchvision's, or timm's for V4.
    """
    if by_name and not family.startswith("v4"):
        later = _LATER_TORCHVISION.search(architecture)
        return Preprocessing(crop_pct=224 / 232) if later else None
    if dialect is SEQUENTIAL:
        return None
    if family.startswith("v4"):
        return _of_timm_v4(architecture)
    if dialect in (TIMM_TF, TRANSFORMERS):
        return Preprocessing(mean=_HALF, std=_HALF)
    return _of_timm(family, architecture)


def _of_timm(family: Family, architecture: str) -> Preprocessing:
    """Return the preprocessing of timm's own weights."""
    if "miil" in architecture:
        return Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    if family == "v1" or "ra4_e3600" in architecture:
        crop_pct = 0.95 if family == "v3-large" else 0.9 if "v1_125" in architecture else 0.875
        return Preprocessing(mean=_HALF, std=_HALF, crop_pct=crop_pct, interpolation="bicubic")
    return Preprocessing(interpolation="bicubic")


def _of_timm_v4(architecture: str) -> Preprocessing | None:
    """Return the preprocessing of timm's V4 weights; None without the name of their training."""
    recipe = re.search(r"v4_conv_(small|medium|large)\w*\.e\d+_(ad_)?r(\d+)_(\w+)", architecture)
    if recipe is None:
        return None
    size, _, resolution, data = recipe.groups()
    half = ".e3000_" in architecture or ".e3600_" in architecture
    crop_pct = 0.875 if (size, resolution) == ("small", "224") else 1.0 if data == "in12k" else 0.95
    normalization = {"mean": _HALF, "std": _HALF} if half else {}
    return Preprocessing(**normalization, crop_pct=crop_pct, interpolation="bicubic")


HUB_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True, slots=True, kw_only=True)
class HubConfig:
    """Content of a config.json: what its library says about the weights beside it.

    Attributes:
        architecture: timm's name of the network and of its training recipe; empty for others.
        preprocessing: Preprocessing of the weights' evaluation; None if it does not say.
        labels: Class names; empty if there are none.
        same_padding: Whether the network pads as TensorFlow does; None if it does not say.
        norm_eps: BatchNorm's epsilon; None if it does not say.
        resolution: Side of the images in pixels; None if it does not say.
    """

    architecture: str = ""
    preprocessing: Preprocessing | None = None
    labels: tuple[str, ...] = ()
    same_padding: bool | None = None
    norm_eps: float | None = None
    resolution: int | None = None

    @property
    def is_imagenet(self) -> bool:
        """Return whether the weights' own name says that they classify ImageNet-1k."""
        return self.architecture.endswith("in1k")


def read_hub_config(checkpoint: Path) -> HubConfig | None:
    """Read the config.json of timm or transformers beside a checkpoint with a hub's file name.

    Returns:
        Its content; None if there is no such file, or it is of another library.

    Raises:
        WeightsError: The file is damaged, or one of its values is invalid.
    """
    path = checkpoint.with_name("config.json")
    if checkpoint.name not in HUB_FILES or not path.is_file():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(document, Mapping):
            return None
        if "pretrained_cfg" in document:
            return _timm_config(document)
        if document.get("model_type") in ("mobilenet_v1", "mobilenet_v2"):
            return _transformers_config(document)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise WeightsError(
            f"{path}, which describes {checkpoint.name}, is damaged: {error!r}.",
            remedy="Copy it again, or move the checkpoint away from it.",
        ) from error
    return None


def _timm_config(document: Mapping[str, Any]) -> HubConfig:
    """Read timm's description of its weights."""
    config = document["pretrained_cfg"]
    return HubConfig(
        architecture=f"{document['architecture']}.{config.get('tag') or ''}",
        preprocessing=Preprocessing(
            mean=tuple(float(value) for value in config["mean"]),
            std=tuple(float(value) for value in config["std"]),
            crop_pct=float(config["crop_pct"]),
            interpolation=_interpolation(config["interpolation"]),
        ),
        labels=tuple(str(name) for name in document.get("label_names") or ()),
        resolution=int(config["input_size"][-1]) if config.get("input_size") else None,
    )


def _transformers_config(document: Mapping[str, Any]) -> HubConfig:
    """Read transformers' description of a network; its default class names are left out."""
    names = {int(index): str(name) for index, name in (document.get("id2label") or {}).items()}
    labels = tuple(names[index] for index in sorted(names))
    return HubConfig(
        labels=() if all(re.fullmatch(r"LABEL_\d+", name) for name in labels) else labels,
        same_padding=bool(document["tf_padding"]) if "tf_padding" in document else None,
        norm_eps=float(document["layer_norm_eps"]) if "layer_norm_eps" in document else None,
    )


def _interpolation(name: object) -> Interpolation:
    """Return the supported interpolation with this name.

    Raises:
        ValueError: There is none.
    """
    for interpolation in get_args(Interpolation):
        if name == interpolation:
            found: Interpolation = interpolation
            return found
    raise ValueError(f"interpolation {name!r}")
