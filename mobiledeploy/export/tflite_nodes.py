"""What the translation to LiteRT reads from the nodes of a program.

Input: nodes of a `torch.export` program, in which int8 operators read `dequantize` nodes and are
read by a `quantize` node. Output: shapes in LiteRT's layout, encodings, windows and fused clamps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema

from mobiledeploy.graph.nodes import clamp_of, only_user

if TYPE_CHECKING:
    from torch.fx import Node

aten = torch.ops.aten
quantized = torch.ops.quantized_decomposed

QUANTIZE = quantized.quantize_per_tensor.default
DEQUANTIZE = quantized.dequantize_per_tensor.default
WEIGHT = quantized.dequantize_per_channel.default
WEIGHTED = (aten.conv2d.default, aten.linear.default)
FUSED = {
    None: schema.ActivationFunctionType.NONE,
    (0.0, float("inf")): schema.ActivationFunctionType.RELU,
    (0.0, 6.0): schema.ActivationFunctionType.RELU6,
}


def shape_of(node: Node) -> tuple[int, ...]:
    """Return the shape of a node's value in LiteRT, where the channels of images come last."""
    shape = tuple(node.meta["val"].shape)
    return (shape[0], *shape[2:], shape[1]) if len(shape) == 4 else shape


def without_clamp(node: Node) -> Node:
    """Return the operator that a ReLU-like activation belongs to; any other node itself.

    An activation that reads codes is an operator of its own.
    """
    if clamp_of(node) is None or source_of(node).target is DEQUANTIZE:
        return node
    return source_of(node)


def is_integer(operator: Node) -> bool:
    """Return whether an operator reads codes and its result is rounded to codes."""
    if operator.op != "call_function" or operator.target in (QUANTIZE, DEQUANTIZE):
        return False
    if operator.target in WEIGHTED and cast("Node", operator.args[1]).target is not WEIGHT:
        return False
    end = only_user(operator)
    if end is not None and clamp_of(end) is not None:
        end = only_user(end)
    reads_codes = source_of(operator).target is DEQUANTIZE
    return reads_codes and end is not None and end.target is QUANTIZE


def fused_clamp(operator: Node) -> Node | None:
    """Return the float activation that LiteRT computes within an operator; None without one."""
    fuses = operator.target in (*WEIGHTED, aten.add.Tensor, aten.mul.Tensor)
    user = only_user(operator)
    bounds = clamp_of(user) if user is not None else None
    return user if fuses and bounds is not None and bounds in FUSED else None


def source_of(node: Node) -> Node:
    """Return an operator's first operand."""
    first = node.args[0]
    return cast("Node", first[0] if isinstance(first, list | tuple) else first)


def encoding_of(operator: Node) -> tuple[np.float32, int]:
    """Return scale and zero-point of the codes that an int8 operator reads first."""
    scale, zero_point = cast("tuple[float, int]", source_of(operator).args[1:3])
    return np.float32(scale), zero_point


def convolution_arguments(node: Node) -> tuple[Any, Any, Any, int]:
    """Return stride, padding, dilation and groups of a convolution."""
    defaults: list[Any] = [[1, 1], [0, 0], [1, 1], 1]
    given = list(node.args[3:])
    stride, padding, dilation, groups = given + defaults[len(given) :]
    return stride, padding, dilation, groups


def window_arguments(node: Node) -> tuple[list[int], list[int], list[int]]:
    """Return kernel, stride and padding of a max pool; torch.export leaves out a padding of 0."""
    windows = cast("list[list[int]]", [*node.args[1:4], [0, 0]])
    return windows[0], windows[1], windows[2]


def pad_value(node: Node) -> float:
    """Return the number that a pad adds."""
    mode_and_value = node.args[2:]
    return cast("float", mode_and_value[1] or 0.0) if len(mode_and_value) > 1 else 0.0


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Return what "SAME" adds before and behind one axis."""
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2
