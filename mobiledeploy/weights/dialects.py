"""The naming schemes that checkpoints speak, and what each implies.

Input: the layers of a checkpoint. Output: the same layers in the order in which an image passes
through them, and what the scheme's implementation does that tensors do not show.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mobiledeploy.weights.layers import Layer

Order = Callable[[Sequence[Layer]], list[Layer]]


@dataclass(frozen=True, slots=True)
class Dialect:
    """One naming scheme.

    Attributes:
        name: What people call it.
        orders: Ways to put the layers in order, the likeliest first.
        same_padding: Whether its networks pad as TensorFlow does.
        norm_eps: BatchNorm's epsilon in its networks; None is the family's own.
    """

    name: str
    orders: tuple[Order, ...]
    same_padding: bool = False
    norm_eps: float | None = None


def as_in_file(layers: Sequence[Layer]) -> list[Layer]:
    """Keep the file's order: that of the modules' definition, as torch.save writes it."""
    return list(layers)


def natural(layers: Sequence[Layer]) -> list[Layer]:
    """Order by name as a reader would: numbers by value, stem before body before classifier.

    For safetensors, which sorts names as strings ("features.10" before "features.2").
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
    """Rank one component of a name among its siblings: role, number, convolution before BN."""
    if part.isdecimal():
        return (1, int(part), 0, "")
    if match := _CONV_OR_NORM.fullmatch(part):
        number = int(match[2] or 2)
        return (0 if number == 1 else 2, number, match[1] != "conv", "")
    return (_ROLES.get(part, 1), 0, 0, part)


def _timm(layers: Sequence[Layer]) -> list[Layer]:
    """Order timm's layers (conv_stem, bn1, blocks.{stage}.{block}.*, conv_head, bn2, classifier).

    In an inverted residual `conv_pw` expands and comes first; in a depthwise separable block, which
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
    """Order Hugging Face's layers (conv_stem, layer.{i}, conv_1x1, classifier)."""
    order = (
        *("conv_stem", "layer", "conv_1x1", "classifier"),
        *("first_conv", "expand_1x1", "conv_3x3", "reduce_1x1"),  # within the stem or a block
        *("convolution", "normalization"),
    )

    def rank(layer: Layer) -> list[int]:
        _, _, inside = layer.name.partition(".")  # behind "mobilenet_v1" or "mobilenet_v2"
        parts = (inside or layer.name).split(".")
        return [
            int(part) if part.isdecimal() else order.index(part) if part in order else len(order)
            for part in parts
        ]

    return sorted(layers, key=rank)


TIMM = Dialect("timm", (_timm,), norm_eps=1e-5)
TIMM_TF = Dialect("timm, ported from TensorFlow", (_timm,), same_padding=True, norm_eps=1e-3)
TRANSFORMERS = Dialect("transformers", (_transformers,), same_padding=True, norm_eps=1e-3)
SEQUENTIAL = Dialect("sequential", (as_in_file, natural))


def recognize(layers: Sequence[Layer], architecture: str) -> Dialect:
    """Tell a dialect by its names; `SEQUENTIAL` where they are nobody's in particular.

    Args:
        layers: Of the checkpoint.
        architecture: What the file calls itself. timm's own networks and those that it ported from
            TensorFlow have equal tensors: only their name tells (``tf_mobilenetv3_...``).
    """
    names = {layer.name for layer in layers}
    if "conv_stem" in names:
        return TIMM_TF if re.search(r"(^|[^a-z])tf_", architecture) else TIMM
    if any(re.match(r"mobilenet_v[12]\.conv_stem\.", name) for name in names):
        return TRANSFORMERS
    return SEQUENTIAL
