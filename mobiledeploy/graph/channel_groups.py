"""Groups of tensors whose channels can be rescaled without changing the network's function.

Input: a traced graph and its fused operators. Output: groups of tensors that have to be scaled
together, and the rescaling itself. Which scales are good is decided elsewhere
(`quantization.equalize`, `quantization.learned_equalization`).
Maths: W2 x = (W2 diag(s)) (diag(1/s) x): the operators that write x divide their rows by s, the
operators that read it multiply their columns by s.
Invariant: the network's outputs stay equal, to float rounding, as long as no scaled channel is
clipped at the group's ceiling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mobiledeploy.graph.fused_ops import weight_and_bias
from mobiledeploy.graph.nodes import groups_of
from mobiledeploy.graph.shared_encodings import connected_components

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch.fx import GraphModule, Node

    from mobiledeploy.graph.fused_ops import FusedOp
    from mobiledeploy.stages import ActivationStats


@dataclass(frozen=True, slots=True)
class ChannelGroup:
    """Tensors whose channels must be scaled together.

    Attributes:
        nodes: The tensors. Gradients of scales are summed in this order, so it decides their last
            bits in `learned_equalization`.
        producers: Operators with weights that write one of them.
        consumers: Operators with weights that read one of them.
        ceiling: Upper bound of the activation in front: 6 for ReLU6, else infinity.
        linear: Whether no activation writes any of the tensors, so that s may be negative.
    """

    nodes: tuple[Node, ...]
    producers: tuple[FusedOp, ...]
    consumers: tuple[FusedOp, ...]
    ceiling: float
    linear: bool


def find_groups(traced: GraphModule, ops: Sequence[FusedOp]) -> tuple[ChannelGroup, ...]:
    """Return the groups of tensors that may be rescaled, in topological order.

    Args:
        traced: From `trace`.
        ops: From `find_fused_ops`.
    """
    (source,) = traced.graph.find_nodes(op="placeholder")
    outputs = [source, *(op.output for op in ops)]
    groups = (
        _group(nodes, ops, source) for nodes in connected_components(outputs, map(_tied_nodes, ops))
    )
    return tuple(group for group in groups if group is not None)


def _tied_nodes(op: FusedOp) -> tuple[Node, ...]:
    """Return the nodes around an operator whose channels must have the same scale."""
    if op.kind == "multiply":
        signal, _ = _signal_and_gate(op)
        return (signal, op.output)
    if op.kind == "pool" or op.shares_encoding:
        return (*op.activations, op.output)
    return (op.output,)


def _group(nodes: tuple[Node, ...], ops: Sequence[FusedOp], source: Node) -> ChannelGroup | None:
    """Return the group that these tensors form; None if rescaling would change the function."""
    makers = [op for op in ops if op.output in nodes]
    readers = [op for op in ops if any(a in nodes for a in op.activations)]
    producers = tuple(op for op in makers if op.has_weight)
    consumers = tuple(op for op in readers if op.has_weight)
    leaves_network = any(user.op == "output" for node in nodes for user in node.users)
    is_gate = any(op.kind == "multiply" and _signal_and_gate(op)[1] in nodes for op in readers)
    nonlinear = any(op.kind in {"hardswish", "sigmoid"} for op in (*makers, *readers))
    bounds = [op.clamp for op in makers if op.clamp is not None]
    ceiling = min((high for _, high in bounds), default=float("inf"))
    # a scale would move a bound other than zero and the ceiling
    nonlinear |= any(low not in {0.0, -float("inf")} for low, _ in bounds)
    merges = len({node.meta["val"].shape[1] for node in nodes}) > 1  # pixels become channels
    if source in nodes or leaves_network or is_gate or nonlinear or merges or not consumers:
        return None
    compares = any(op.kind == "maxpool" for op in readers)  # a negative scale swaps the order
    linear = not bounds and not compares
    return ChannelGroup(nodes, producers, consumers, ceiling, linear=linear)


def _signal_and_gate(multiplication: FusedOp) -> tuple[Node, Node]:
    """Return the two operands of a multiplication: the tensor, and the gate per channel."""
    gate, signal = sorted(multiplication.activations, key=lambda node: node.meta["val"].numel())
    return signal, gate


def rescale_all(
    traced: GraphModule,
    scales: Iterable[tuple[ChannelGroup, torch.Tensor]],
    observed: Mapping[str, ActivationStats],
) -> dict[str, ActivationStats]:
    """Rescale groups in place; return the activation statistics of the result, by node name.

    Args:
        traced: The graph that owns the weights.
        scales: Groups, each with its scales s (channels,), float32.
        observed: Activation statistics before rescaling, by node name.
    """
    rescaled = dict(observed)
    for group, scale in scales:
        rescale(traced, group, scale)
        rescaled |= {
            node.name: observed[node.name].divided_by(scale.numpy()) for node in group.nodes
        }
    return rescaled


def rescale(traced: GraphModule, group: ChannelGroup, scale: torch.Tensor) -> None:
    """Replace a group's channels x by x / s, in place.

    Args:
        traced: The graph that owns the weights.
        group: One of its groups.
        scale: The scales s, (channels,), float32.
    """
    for op in group.producers:
        weight, bias = weight_and_bias(traced, op)
        weight.copy_(weight / scale.view(-1, *[1] * (weight.dim() - 1)))
        bias.copy_(bias / scale)
    for op in group.consumers:
        weight, _ = weight_and_bias(traced, op)
        groups = groups_of(op.operator)
        per_input = scale.view(groups, 1, -1)  # scales of the input channels of each group
        per_input = per_input.expand(-1, weight.shape[0] // groups, -1).reshape(weight.shape[:2])
        weight.copy_(weight * per_input.view(*weight.shape[:2], *[1] * (weight.dim() - 2)))
