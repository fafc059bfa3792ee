"""The folded network as a flat graph of ATen operators.

Input: a `FoldedModel`. Output: an `fx.GraphModule` that owns its weights. Equalization and
quantization both work on this form.
Maths: hard-sigmoid(W x + b) = clamp((W / 6) x + b / 6 + 1/2, 0, 1), so the gate of
squeeze-and-excitation becomes a convolution with a clamp (Howard et al., "Searching for
MobileNetV3" (2019), section 5.2).
Invariant: the graph computes what the module computes, at any batch size.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, cast

import torch

from mobiledeploy.errors import ExportError
from mobiledeploy.graph.fused_ops import FusedOp, weight_and_bias
from mobiledeploy.graph.nodes import describe_node
from mobiledeploy.utils.quiet import quietly

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

    from mobiledeploy.stages import FoldedModel

aten = torch.ops.aten

# Operators that overwrite their operand. They become out-of-place, so that every value of the graph
# can be observed.
OUT_OF_PLACE: dict[object, torch._ops.OpOverload] = {
    aten.add_.Tensor: aten.add.Tensor,
    aten.sub_.Tensor: aten.sub.Tensor,
    aten.mul_.Tensor: aten.mul.Tensor,
    aten.div_.Tensor: aten.div.Tensor,
    aten.clamp_.default: aten.clamp.default,
    aten.sigmoid_.default: aten.sigmoid.default,
    aten.tanh_.default: aten.tanh.default,
    aten.silu_.default: aten.silu.default,
    aten.leaky_relu_.default: aten.leaky_relu.default,
    aten.relu_.default: aten.relu.default,
    aten.relu6_.default: aten.relu6.default,
    aten.hardtanh_.default: aten.hardtanh.default,
    aten.hardswish_.default: aten.hardswish.default,
    aten.hardsigmoid_.default: aten.hardsigmoid.default,
}


def trace(model: FoldedModel) -> GraphModule:
    """Return the folded module as a flat ATen graph with its own copy of the weights.

    Removes dropout, replaces in-place operators and folds every hard-sigmoid into the convolution
    before it. A module that already is such a graph is copied.

    Raises:
        ExportError: a hard-sigmoid does not follow a convolution that has no other user.
    """
    with quietly():  # copying a graph warns about torch's own pytree
        module = copy.deepcopy(model.module).eval()
    if isinstance(module, torch.fx.GraphModule):
        return module
    with quietly():
        program = torch.export.export(module, (torch.zeros(model.info.input.shape),))
        unlifted = program.module(check_guards=False)
    # A new graph module, without the exported program's hook that fixes the batch size to one.
    traced = torch.fx.GraphModule(unlifted, unlifted.graph)
    for node in traced.graph.find_nodes(op="call_function", target=aten.dropout.default):
        node.replace_all_uses_with(cast("Node", node.args[0]))
        traced.graph.erase_node(node)
    for node in traced.graph.nodes:
        node.target = OUT_OF_PLACE.get(node.target, node.target)
    fold_hard_sigmoids(traced)
    traced.recompile()
    return traced


def fold_hard_sigmoids(traced: GraphModule) -> None:
    """Fold every hard-sigmoid into the convolution before it, in place.

    Raises:
        ExportError: one does not follow a convolution that has no other user.
    """
    for node in traced.graph.find_nodes(op="call_function", target=aten.hardsigmoid.default):
        _fold_hard_sigmoid(traced, node)


def _fold_hard_sigmoid(traced: GraphModule, node: Node) -> None:
    """Replace convolution + hard-sigmoid by a convolution clamped to [0, 1], in place.

    hard-sigmoid(y) = relu6(y + 3) / 6 = clamp(y / 6 + 1/2, 0, 1): the convolution takes W / 6 and
    b / 6 + 1/2, and its saturation performs the clamp.
    """
    convolution = cast("Node", node.args[0])
    weighted = convolution.target in (aten.conv2d.default, aten.linear.default)
    if not weighted or len(convolution.users) != 1:
        raise ExportError(
            f"The operator {describe_node(node)} has no int8 form: it follows"
            f" {convolution.target}; expected a convolution or a linear layer without other users.",
            remedy="Export without --int8.",
        )
    weight, bias = weight_and_bias(traced, FusedOp("convolution", convolution, node, None))
    weight.div_(6)
    bias.div_(6).add_(0.5)
    node.target = aten.hardtanh.default
    node.args = (convolution, 0.0, 1.0)
    node.kwargs = {}
