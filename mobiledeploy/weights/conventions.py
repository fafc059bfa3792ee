"""What implementations do that tensors do not show.

The figures are those of timm 1.0.31's model configurations and of torchvision 0.28's presets.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from mobiledeploy.types import Family, Preprocessing
from mobiledeploy.weights.dialects import SEQUENTIAL, TIMM, TIMM_TF, TRANSFORMERS, Dialect
from mobiledeploy.weights.layers import Layer

_HALF = (0.5, 0.5, 0.5)  # pixels in [-1, 1], as TensorFlow's networks take them
_LATER_TORCHVISION = re.compile(r"mobilenet_v2-7ebf99e0|mobilenet_v3_large-5c1a4163")


def implied_options(
    dialect: Dialect, family: Family, layers: Sequence[Layer], *, default_eps: float
) -> tuple[dict[str, Any], list[str]]:
    """Return the architecture options that a dialect implies, by name, and a note on each.

    Args:
        dialect: Of a checkpoint that does not have our own names.
        family: Of its network.
        layers: Of the checkpoint.
        default_eps: BN's epsilon where nothing is said.
    """
    options: dict[str, Any] = {}
    notes = []
    if dialect.same_padding:
        options["padding"] = "same"
        notes.append("Convolutions pad as TensorFlow's do: the weights come from there.")
    if dialect.norm_eps not in (None, default_eps):
        options["norm_eps"] = dialect.norm_eps
        notes.append(f"BN's epsilon is {dialect.norm_eps:g}, as in {dialect.name}.")
    if dialect is TIMM and family.startswith("v3"):
        notes.append(
            "timm's V3 ported from TensorFlow have the same tensors, other padding and epsilon: "
            "only a file name with tf_ tells them apart."
        )
    if dialect is SEQUENTIAL:
        notes.append(
            "Layers were paired in the order of their definition. Strides and padding are the "
            "published ones: tensors do not show them."
        )
        if family == "v1":
            relu = any(re.fullmatch(r"model\.\d+\.\d+", layer.name) for layer in layers)
            if relu:  # the implementation that has these names
                options["activation"] = "relu"
            notes.append(
                f"The activation is {'ReLU' if relu else 'ReLU6'}: tensors do not show it."
                " The architecture option `activation` changes it."
            )
    return options, notes


def implied_preprocessing(
    dialect: Dialect, family: Family, architecture: str, *, by_name: bool
) -> Preprocessing | None:
    """Return the preprocessing that a dialect's RGB weights expect; None where nothing is known.

    Args:
        dialect: Of the checkpoint.
        family: Of its network.
        architecture: What the checkpoint calls itself, for example its file's name: training
            recipes differ in their preprocessing, and only that name tells which it was.
        by_name: Whether the names are our own, which are torchvision's.
    """
    if by_name:
        later = _LATER_TORCHVISION.search(architecture)
        return Preprocessing(crop_pct=224 / 232) if later else None
    if dialect is SEQUENTIAL:
        return None
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
