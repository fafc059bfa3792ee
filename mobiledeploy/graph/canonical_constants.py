"""Arithmetic with constants, written as BatchNorm, which the next stage folds.

Input: a flat ATen graph. Output: the same graph in which

    x * c, x + c, x - c, c - x, x / c, -x    -> batch_norm(x) with mean 0, variance 1, eps 0
    a - b of two activations                 -> a + batch_norm(b), whose gain is -1
    operators of constants alone             -> their value

if the constant is a number or has one value per channel. Invariant: other constants, such as one
value per pixel, stay as they are, and are refused by their operator's name.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, TypeAlias, cast

import torch

from mobiledeploy.graph.rewriting import call_before, calls, constant_before, replace, shape_of

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

aten = torch.ops.aten

_Operand: TypeAlias = "Node | float | torch.Tensor"
_ADDITIONS = (aten.add.Tensor, aten.add.Scalar, aten.sub.Tensor, aten.sub.Scalar, aten.rsub.Scalar)
_CREATIONS = (aten.ones.default, aten.zeros.default, aten.full.default)
_PRODUCTS = (aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar)


def evaluate_constants(traced: GraphModule) -> None:
    """Replace every operator that reads nothing but constants by its value, in place."""
    for node in list(traced.graph.nodes):
        inputs = node.all_input_nodes
        known = bool(inputs) or node.target in _CREATIONS
        if node.op != "call_function" or not known or any(n.op != "get_attr" for n in inputs):
            continue
        arguments, named = torch.fx.node.map_arg(
            (node.args, node.kwargs), lambda source: _value(traced, source)
        )
        with torch.no_grad():
            value = node.target(*arguments, **named)
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            replace(traced, node, constant_before(traced, node, "value", value.clone()))


def write_constants_as_batch_norm(traced: GraphModule) -> None:
    """Rewrite arithmetic with constants, in place."""
    for node in calls(traced, (aten.neg.default,)):
        _become_batch_norm(traced, node, node.args[0], -1.0, 0.0)
    for node in calls(traced, (*_ADDITIONS, *_PRODUCTS)):
        first, second = (_operand(traced, each) for each in node.args[:2])
        if node.target in _ADDITIONS:
            _rewrite_sum(traced, node, first, second)
        else:
            _rewrite_product(traced, node, first, second)


def _rewrite_sum(traced: GraphModule, node: Node, first: _Operand, second: _Operand) -> None:
    """Rewrite first + f second, where f is 1, -1, or an `alpha` that is given."""
    alpha = cast("float", node.args[2] if len(node.args) > 2 else node.kwargs.get("alpha", 1))
    if node.target is aten.rsub.Scalar:  # second - alpha * first
        first, second = second, first
    factor = alpha if node.target in (aten.add.Tensor, aten.add.Scalar) else -alpha
    if isinstance(first, torch.fx.Node) and isinstance(second, torch.fx.Node):
        if factor != 1:
            scaled = call_before(traced, node, aten.mul.Tensor, second, factor)
            scaled.meta["val"] = second.meta["val"]
            node.target, node.args, node.kwargs = aten.add.Tensor, (first, scaled), {}
            _become_batch_norm(traced, scaled, second, factor, 0.0)
    elif isinstance(first, torch.fx.Node):
        _become_batch_norm(traced, node, first, 1.0, factor * cast("float", second))
    elif isinstance(second, torch.fx.Node):
        _become_batch_norm(traced, node, second, factor, first)


def _rewrite_product(traced: GraphModule, node: Node, first: _Operand, second: _Operand) -> None:
    divides = node.target in (aten.div.Tensor, aten.div.Scalar)
    if isinstance(first, torch.fx.Node) and not isinstance(second, torch.fx.Node):
        if len(node.args) == 2 and not node.kwargs:
            _become_batch_norm(traced, node, first, 1 / second if divides else second, 0.0)
    elif isinstance(second, torch.fx.Node) and not (divides or isinstance(first, torch.fx.Node)):
        _become_batch_norm(traced, node, second, first, 0.0)


def _become_batch_norm(
    traced: GraphModule,
    node: Node,
    source: object,
    gain: float | torch.Tensor,
    offset: float | torch.Tensor,
) -> None:
    """Make a node compute gain * source + offset, if both are constant per channel."""
    assert isinstance(source, torch.fx.Node)
    shape = shape_of(source)
    values = [_per_channel(each, shape) for each in (gain, offset)]
    if len(shape) not in (2, 4) or shape_of(node) != shape:
        return
    weight, bias = values
    if weight is None or bias is None:
        return
    constants = {
        "factor": weight,
        "addend": bias,
        "mean": torch.zeros(shape[1]),
        "variance": torch.ones(shape[1]),
    }
    attributes = [constant_before(traced, node, name, each) for name, each in constants.items()]
    node.target, node.kwargs = aten.batch_norm.default, {}
    node.args = (source, *attributes, False, 0.0, 0.0, False)


def _per_channel(value: float | torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor | None:
    """Return a constant as (channels,), for a tensor of a shape; None if it is another one."""
    constant = torch.as_tensor(value, dtype=torch.float32)
    if constant.numel() == 1:
        return constant.reshape(1).repeat(shape[1])
    padded = (*[1] * (len(shape) - constant.dim()), *constant.shape)
    expected = (1, shape[1], *[1] * (len(shape) - 2))
    return constant.reshape(-1).clone() if padded == expected else None


def _operand(traced: GraphModule, value: object) -> _Operand:
    """Return the node of an activation, or the value of a constant."""
    if isinstance(value, torch.fx.Node) and value.op == "get_attr":
        return _value(traced, value)
    return cast("_Operand", value)


def _value(traced: GraphModule, node: Node) -> torch.Tensor:
    return cast("torch.Tensor", operator.attrgetter(str(node.target))(traced)).detach()
