"""Which operators of a program have a form in LiteRT that computes the same.

Input: a node of a program. Output: nothing, or an `ExportError` that names operator, module and
line of code. LiteRT holds images as (1, H, W, C), so operators that depend on the order of the axes
have a form only where that order is known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch

from mobiledeploy.errors import ExportError
from mobiledeploy.export.tflite_moves import MOVES
from mobiledeploy.export.tflite_nodes import pad_value
from mobiledeploy.graph.fused_ops import OPAQUE
from mobiledeploy.graph.nodes import describe_node, is_plain_max_pool, is_zero_padding

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.fx import Node

aten = torch.ops.aten


def require_form(node: Node) -> None:
    """Raise ExportError unless LiteRT has a form of an operator.

    Args:
        node: A node that calls an ATen operator.
    """
    check = _CHECKS.get(node.target)
    if check is None:
        raise refused(node, "No form of it for LiteRT is known")
    if node.kwargs:
        raise refused(node, f"LiteRT has no form of it with {dict(node.kwargs)}")
    reason = check(node)
    if reason:
        raise refused(node, reason)


def refused(node: Node, reason: str) -> ExportError:
    """Return the error for an operator that LiteRT cannot compute."""
    return ExportError(
        f"The operator {describe_node(node)} cannot be written to a .tflite: {reason}.",
        remedy="Export to ONNX or .pte.",
    )


def _anything(_node: Node) -> str:
    return ""


def _linear(node: Node) -> str:
    shape = tuple(_operand(node, 0).shape)
    return "" if len(shape) == 2 else f"its input has the shape {shape}; expected (1, K)"


def _binary(node: Node) -> str:
    if not all(isinstance(each, torch.fx.Node) and each.op != "get_attr" for each in node.args):
        return "one of its operands is a constant"
    shapes = [tuple(_operand(node, index).shape) for index in (0, 1)]
    return "" if len(shapes[0]) == len(shapes[1]) else f"its operands have the shapes {shapes}"


def _pool(node: Node) -> str:
    size = list(cast("list[int]", node.args[1]))
    return "" if size == [1, 1] else f"it averages to {size}; expected the whole image, or windows"


def _max_pool(node: Node) -> str:
    return "" if is_plain_max_pool(node) else "it has a dilation or ceil mode"


def _flatten(node: Node) -> str:
    return "" if list(node.args[1:]) == [1] else f"it flattens the axes {list(node.args[1:])}"


def _pad(node: Node) -> str:
    amounts = cast("list[int]", node.args[1])
    opaque = not any(amounts[:4]) and pad_value(node) == OPAQUE
    known = (len(amounts) == 4 and is_zero_padding(node)) or opaque
    return "" if known else "it is no padding of an image with zeros"


def _operand(node: Node, index: int) -> torch.Tensor:
    return cast("torch.Tensor", cast("Node", node.args[index]).meta["val"])


_CHECKS: dict[Any, Callable[[Node], str]] = {
    **dict.fromkeys(MOVES, _anything),
    aten.conv2d.default: _anything,
    aten.linear.default: _linear,
    aten.add.Tensor: _binary,
    aten.mul.Tensor: _binary,
    aten.adaptive_avg_pool2d.default: _pool,
    aten.max_pool2d.default: _max_pool,
    aten.flatten.using_ints: _flatten,
    aten.pad.default: _pad,
    aten.hardswish.default: _anything,
    aten.sigmoid.default: _anything,
    aten.relu.default: _anything,
    aten.relu6.default: _anything,
    aten.hardtanh.default: _anything,
}
