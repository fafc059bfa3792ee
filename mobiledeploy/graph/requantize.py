"""Identity convolutions where one tensor needs two encodings.

Input: a flat ATen graph. Output: the same graph with depthwise 1x1 convolutions of weight 1.

Operands and result of an addition or a concatenation share one encoding, and the encoding of some
tensors is not free: the input's follows from the pixels, a product and a hard-swish avoid half-way
results, a mean depends on its input, a sigmoid's is always the same, a hard-swish's input starts at
-3, and a sigmoid's input has a scale of its own.
Where one tensor is bound in two ways, a convolution between them requantizes it. Invariant: the
float function stays the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from mobiledeploy.graph.nodes import clamp_of

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

aten = torch.ops.aten

_BOUND = (
    aten.mul.Tensor,
    aten.hardswish.default,
    aten.sigmoid.default,
    aten.adaptive_avg_pool2d.default,
)
_SHARING = (aten.add.Tensor, aten.cat.default)
_COPYING = (
    aten.flatten.using_ints,
    aten.reshape.default,
    aten.permute.default,
    aten.slice.Tensor,
    aten.pad.default,
    aten.max_pool2d.default,
    aten.upsample_nearest2d.vec,
)
_WEIGHTED = (aten.conv2d.default, aten.linear.default)


def insert_requantizations(traced: GraphModule) -> None:
    """Insert identity convolutions where they are needed, in place."""
    for node in list(traced.graph.nodes):
        if node.target in _SHARING:
            origins = {operand: _origin(operand) for operand in node.all_input_nodes}
            if node.target is aten.cat.default and len(set(origins.values())) == 1:
                continue  # parts of one tensor have one encoding
            for operand, origin in origins.items():
                if origin.op == "placeholder" or origin.target in _BOUND:
                    _insert(traced, operand, node)
        elif node.target in (aten.hardswish.default, aten.hardsigmoid.default):
            source = cast("Node", node.args[0])
            if source.target not in _WEIGHTED or len(source.users) > 1:
                _insert(traced, source, node)
        elif node.target is aten.sigmoid.default:
            source = cast("Node", node.args[0])
            if source.target not in _WEIGHTED:
                _insert(traced, source, node)


def _origin(node: Node) -> Node:
    """Return the operator that computes a tensor, through activations and copies."""
    while clamp_of(node) is not None or node.target in _COPYING:
        node = cast("Node", node.args[0])
    return node


def _insert(traced: GraphModule, source: Node, reader: Node) -> None:
    """Put an identity convolution between a tensor and one of its readers."""
    shape = source.meta["val"].shape
    channels, is_image = shape[1], len(shape) == 4
    name = f"{source.name}_to_{reader.name}"
    weight = torch.ones(channels, 1, 1, 1) if is_image else torch.eye(channels)
    parameters = {f"{name}_weight": weight, f"{name}_bias": torch.zeros(channels)}
    for each, value in parameters.items():
        traced.register_parameter(each, torch.nn.Parameter(value, requires_grad=False))
    with traced.graph.inserting_before(reader):
        attributes = [traced.graph.get_attr(each) for each in parameters]
        layout = ([1, 1], [0, 0], [1, 1], channels) if is_image else ()
        target = aten.conv2d.default if is_image else aten.linear.default
        identity = traced.graph.create_node(
            "call_function", target, (source, *attributes, *layout), name=name
        )
    identity.meta = dict(source.meta)
    reader.replace_input_with(source, identity)
