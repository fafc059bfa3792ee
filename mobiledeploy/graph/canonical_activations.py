"""Activations in the few forms that the next stages know.

Input: a flat ATen graph. Output: the same graph with

    x * clamp(x + 3, 0, 6) / 6         -> hardswish(x)
    clamp(x + 3, 0, 6) / 6             -> hardsigmoid(x)
    silu(x)                            -> x * sigmoid(x)
    tanh(x)                            -> 2 sigmoid(2 x) - 1
    leaky_relu(x, a), prelu(x, a)      -> a x + (1 - a) relu(x)

The last two are arithmetic of operators that are exact in every runtime. The runtimes' own tanh and
leaky ReLU are not: XNNPACK holds the slope of a leaky ReLU in 8 bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from mobiledeploy.graph.nodes import parameter
from mobiledeploy.graph.rewriting import call_before, calls, constant_before, shape_of

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

aten = torch.ops.aten


def canonical_activations(traced: GraphModule) -> None:
    """Rewrite every activation, in place."""
    for rewrite in (_clamps, _hard_sigmoids, _hard_swishes, _silus, _tanhs, _leaky_relus):
        rewrite(traced)
        traced.graph.eliminate_dead_code()


def _clamps(traced: GraphModule) -> None:
    """Write clamps and ReLU6 as ReLU or hardtanh, which the integer reference defines."""
    for node in calls(traced, (aten.relu6.default,)):
        node.target, node.args = aten.hardtanh.default, (node.args[0], 0.0, 6.0)
    for node in calls(traced, (aten.clamp.default, aten.clamp_min.default)):
        low, high = (*node.args[1:], None, None)[:2]
        if low == 0 and high is None:
            node.target, node.args = aten.relu.default, node.args[:1]
        elif low is not None and high is not None:
            node.target, node.args = aten.hardtanh.default, (node.args[0], low, high)


def _hard_sigmoids(traced: GraphModule) -> None:
    """Recognise clamp(x + 3, 0, 6) / 6."""
    for node in calls(traced, (aten.div.Tensor, aten.mul.Tensor)):
        divided = node.target is aten.div.Tensor
        if not _is_scalar(node.args[1], 6 if divided else 1 / 6):
            continue
        source = _behind_shifted_clamp(node.args[0])
        if source is not None:
            node.target, node.args = aten.hardsigmoid.default, (source,)


def _hard_swishes(traced: GraphModule) -> None:
    """Recognise x * hardsigmoid(x), and x * clamp(x + 3, 0, 6) / 6."""
    for node in calls(traced, (aten.mul.Tensor,)):
        for x, gate in (node.args[:2], node.args[1::-1]):
            is_gate = isinstance(gate, torch.fx.Node) and gate.target is aten.hardsigmoid.default
            if is_gate and cast("Node", gate).args[0] is x:
                node.target, node.args = aten.hardswish.default, (x,)
                break
    for node in calls(traced, (aten.div.Tensor, aten.mul.Tensor)):
        if not _is_scalar(node.args[1], 6 if node.target is aten.div.Tensor else 1 / 6):
            continue
        product = node.args[0]
        if not isinstance(product, torch.fx.Node) or product.target is not aten.mul.Tensor:
            continue
        for x, gate in (product.args[:2], product.args[1::-1]):
            if _behind_shifted_clamp(gate) is x and x is not None:
                node.target, node.args = aten.hardswish.default, (x,)
                break


def _silus(traced: GraphModule) -> None:
    """Write SiLU as a product, whose two operators have integer forms."""
    for node in calls(traced, (aten.silu.default,)):
        source = cast("Node", node.args[0])
        with traced.graph.inserting_before(node):
            gate = traced.graph.call_function(aten.sigmoid.default, (source,))
        gate.meta = dict(node.meta)
        node.target, node.args = aten.mul.Tensor, (source, gate)


def _tanhs(traced: GraphModule) -> None:
    """Write tanh(x) as 2 sigmoid(2 x) - 1."""
    for node in calls(traced, (aten.tanh.default,)):
        value = node.meta["val"]
        doubled = call_before(traced, node, aten.mul.Tensor, node.args[0], 2.0)
        gate = call_before(traced, node, aten.sigmoid.default, doubled)
        wide = call_before(traced, node, aten.mul.Tensor, gate, 2.0)
        for each in (doubled, gate, wide):
            each.meta["val"] = value
        node.target, node.args = aten.sub.Tensor, (wide, 1.0)


def _leaky_relus(traced: GraphModule) -> None:
    """Write max(x, 0) + a min(x, 0) as a x + (1 - a) max(x, 0)."""
    for node in calls(traced, (aten.leaky_relu.default, aten.prelu.default)):
        source = cast("Node", node.args[0])
        slope: object = node.args[1] if len(node.args) > 1 else 0.01
        rest: object
        if node.target is aten.prelu.default:
            values = parameter(traced, slope).data.view(-1, *[1] * (len(shape_of(source)) - 2))
            slope = constant_before(traced, node, "slope", values.clone())
            rest = constant_before(traced, node, "rest", 1 - values)
        else:
            rest = 1 - cast("float", slope)
        positive = call_before(traced, node, aten.relu.default, source)
        parts = [
            call_before(traced, node, aten.mul.Tensor, source, slope),
            call_before(traced, node, aten.mul.Tensor, positive, rest),
        ]
        for each in (positive, *parts):
            each.meta["val"] = source.meta["val"]
        node.target, node.args = aten.add.Tensor, tuple(parts)


def _behind_shifted_clamp(node: object) -> Node | None:
    """Return x for clamp(x + 3, 0, 6); None for anything else."""
    if not isinstance(node, torch.fx.Node):
        return None
    is_relu6 = node.target is aten.relu6.default or (
        node.target is aten.hardtanh.default and tuple(node.args[1:]) in ((0, 6), (0.0, 6.0))
    )
    shifted = node.args[0] if is_relu6 else None
    if not isinstance(shifted, torch.fx.Node) or shifted.target is not aten.add.Tensor:
        return None
    return cast("Node", shifted.args[0]) if _is_scalar(shifted.args[1], 3) else None


def _is_scalar(value: object, expected: float) -> bool:
    return isinstance(value, int | float) and abs(value - expected) < 1e-6
