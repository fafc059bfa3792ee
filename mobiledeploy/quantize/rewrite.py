"""Rewrites of the float graph that change its form and not its function.

hard-sigmoid(y) = relu6(y + 3) / 6 = clamp(y / 6 + 1/2, 0, 1)

So a hard-sigmoid behind a convolution is that convolution with weights W / 6 and bias b / 6 + 1/2,
clamped to [0, 1]: one int8 operator whose saturation is the activation (MobileNetV3, section 5.2
introduces it; the squeeze-and-excitation gate is its only use there).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from mobiledeploy.errors import ExportError
from mobiledeploy.quantize.graph import Unit, weight_and_bias

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

aten = torch.ops.aten
_HARD_SIGMOID = (aten.hardsigmoid.default, aten.hardsigmoid_.default)


def absorb_hard_sigmoid(traced: GraphModule) -> None:
    """Turn every convolution + hard-sigmoid into a convolution clamped to [0, 1], in place.

    Exact in real arithmetic; in float32 to rounding.

    Raises:
        ExportError: a hard-sigmoid does not follow a convolution that only it reads.
    """
    for node in list(traced.graph.nodes):
        if node.target not in _HARD_SIGMOID:
            continue
        convolution = cast("Node", node.args[0])
        if convolution.target is not aten.conv2d.default or len(convolution.users) != 1:
            raise ExportError(
                f"The hard-sigmoid {node.name} follows {convolution.target}, not a convolution of"
                " its own, and has no int8 form.",
                remedy="Export without --int8.",
            )
        weight, bias = weight_and_bias(traced, Unit("convolution", convolution, node, None))
        weight.div_(6)
        bias.div_(6).add_(0.5)
        node.target = aten.hardtanh.default
        node.args = (convolution, 0.0, 1.0)
        node.kwargs = {}
    traced.recompile()
