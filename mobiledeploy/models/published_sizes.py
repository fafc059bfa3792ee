"""The networks whose sizes a paper or a release states, and those sizes.

`published_sizes.json` holds what `summary.summarize` counts for them, so that listing them needs no
torch; a test counts them again, and `pytest --regen` writes the file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files

from mobiledeploy.models.spec import ArchitectureOptions, Family, ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTotals:
    """The sizes of a network.

    Attributes:
        spec: The network.
        params: Number of trainable parameters.
        macs: Multiply-accumulates for one image.
        fp32_bytes: Bytes of float weights and biases after folding BatchNorm.
        int8_bytes: Bytes of int8 weights, their scales and int32 biases.
    """

    spec: ModelSpec
    params: int
    macs: int
    fp32_bytes: int
    int8_bytes: int


_PUBLISHED_WIDTHS: dict[Family, tuple[float, ...]] = {
    "v1": (1.0, 0.75, 0.5, 0.25),
    "v2": (1.4, 1.3, 1.0, 0.75, 0.5, 0.35),
    "v3-large": (1.0, 0.75),
    "v3-small": (1.0, 0.75),
    "v4-conv-small": (1.0, 0.5, 0.35),
    "v4-conv-medium": (1.0,),
    "v4-conv-large": (1.0,),
}
_SLIM = ArchitectureOptions(width_rule="slim")
_HEAD_1280 = ArchitectureOptions(head_width=1280)
_SLIM_HEAD_1280 = ArchitectureOptions(width_rule="slim", head_width=1280)


def published() -> tuple[ModelSpec, ...]:
    """Return every network whose size a paper or a release states, at 224 pixels.

    V3 is included in both readings: torchvision's and that of the paper's tables.
    """
    plain = (
        ModelSpec(family=family, width=width)
        for family, widths in _PUBLISHED_WIDTHS.items()
        for width in widths
    )
    return (
        *plain,
        ModelSpec(family="v3-large", width=0.75, architecture=_SLIM),
        ModelSpec(family="v3-small", width=1.0, architecture=_HEAD_1280),
        ModelSpec(family="v3-small", width=0.75, architecture=_SLIM_HEAD_1280),
    )


def published_totals() -> tuple[ModelTotals, ...]:
    """Return the sizes of every published network, in the order of `published`."""
    sizes = json.loads((files("mobiledeploy.models") / "published_sizes.json").read_text())
    return tuple(ModelTotals(spec=spec, **sizes[spec.name]) for spec in published())
