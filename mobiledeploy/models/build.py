"""Build a network from a specification.

Input: `ModelSpec`. Output: an `nn.Module` in eval mode, on the CPU, initialised from the seed.
Invariant: the same specification gives the same tensors; torch's global random state is unchanged.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from mobiledeploy.models import mobilenet_v1, mobilenet_v2, mobilenet_v3, mobilenet_v4
from mobiledeploy.models.blocks import Layers, SamePaddingConv2d
from mobiledeploy.models.initialize import initialize
from mobiledeploy.models.spec import Family, ModelSpec
from mobiledeploy.models.validate import validate

# BatchNorm's epsilon and momentum of the published weights: torchvision's V3 has TensorFlow's
# values, the others have PyTorch's.
_NORM: dict[Family, tuple[float, float]] = {
    "v1": (1e-5, 0.1),
    "v2": (1e-5, 0.1),
    "v3-large": (1e-3, 0.01),
    "v3-small": (1e-3, 0.01),
    "v4-conv-small": (1e-5, 0.1),
    "v4-conv-medium": (1e-5, 0.1),
    "v4-conv-large": (1e-5, 0.1),
}


def create(spec: ModelSpec) -> nn.Module:
    """Build the network of `spec`, initialised from `spec.seed`, in eval mode.

    The weights that `spec.weights` names are not loaded.

    Raises:
        UsageError: The specification is invalid or contradictory.
    """
    module = create_on_meta(spec).to_empty(device="cpu")
    initialize(module, spec.seed)
    return module


def create_on_meta(spec: ModelSpec) -> nn.Module:
    """Build the network of `spec` without storage: shapes only, in milliseconds.

    Raises:
        UsageError: The specification is invalid or contradictory.
    """
    validate(spec)
    with torch.device("meta"):
        return _assemble(spec).eval()


def _assemble(spec: ModelSpec) -> nn.Module:
    """Call the family's class with the specification's values."""
    options = spec.architecture
    rows = options.rows or ()
    common: dict[str, Any] = {  # arguments of all classes
        "width": spec.width,
        "stem_width": options.stem_width,
        "stem_stride": options.stem_stride,
        "head": options.head,
        "num_classes": spec.num_classes,
        "in_channels": spec.in_channels,
        "dropout": spec.dropout,
        "layers": _layers(spec),
    }
    match spec.family:
        case "v1":
            return mobilenet_v1.MobileNetV1(
                tuple(map(mobilenet_v1.Row._make, rows)) or mobilenet_v1.ROWS,
                kernels_per_layer=options.kernels_per_layer,
                activation=nn.ReLU if options.activation == "relu" else nn.ReLU6,
                **common,
            )
        case "v2":
            return mobilenet_v2.MobileNetV2(
                tuple(map(mobilenet_v2.Row._make, rows)) or mobilenet_v2.INVERTED_RESIDUAL_SETTING,
                round_nearest=options.round_nearest,
                head_width=options.head_width,
                **common,
            )
        case "v3-large" | "v3-small":
            published = mobilenet_v3.LARGE if spec.family == "v3-large" else mobilenet_v3.SMALL
            return mobilenet_v3.MobileNetV3(
                tuple(map(mobilenet_v3.Row._make, rows)) or published,
                head_width=options.head_width or mobilenet_v3.HEAD[spec.family],
                hidden_width=options.hidden_width,
                width_rule=options.width_rule,
                dilated=options.dilated,
                reduced_tail=options.reduced_tail,
                se_gate=options.se_gate,
                **common,
            )
        case "v4-conv-small" | "v4-conv-medium" | "v4-conv-large":
            return mobilenet_v4.MobileNetV4(
                tuple(map(mobilenet_v4.Row._make, rows)) or mobilenet_v4.TABLES[spec.family],
                stem=mobilenet_v4.STEM[spec.family],
                head_width=options.head_width,
                **common,
            )


def _layers(spec: ModelSpec) -> Layers:
    """Return the constructors of this network's convolutions and norms."""
    eps, momentum = _NORM[spec.family]
    return Layers(
        conv=SamePaddingConv2d if spec.architecture.padding == "same" else nn.Conv2d,
        norm=None
        if spec.architecture.norm == "none"
        else partial(nn.BatchNorm2d, eps=spec.architecture.norm_eps or eps, momentum=momentum),
    )
