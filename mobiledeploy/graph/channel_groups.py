"""Which tensors' channels can be rescaled without changing the network, and how it is done.

A linear operator in front of a tensor x can produce x / s (its rows divided by s), and the
operators behind it can read it so (their columns multiplied by s):

    W2 x = (W2 diag(s)) (diag(1/s) x)

In: a traced graph and its units. Out: groups of tensors that have to be scaled together. Which s
is a good one is for others to say (`equalize`, `quantize.factors`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mobiledeploy.graph.aten_graph import groups_of, weight_and_bias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch.fx import GraphModule, Node

    from mobiledeploy.graph.aten_graph import FusedOp
    from mobiledeploy.network import ActivationStats


@dataclass(frozen=True, slots=True)
class ChannelGroup:
    """Tensors whose channels must be scaled together, and the operators on both sides of them.

    Attributes:
        ceiling: What no scaled channel may exceed: 6 behind a ReLU6, else infinity.
        linear: Whether no ReLU makes any of them, also behind an addition: signs may change then.
    """

    nodes: tuple[Node, ...]
    producers: tuple[FusedOp, ...]
    consumers: tuple[FusedOp, ...]
    ceiling: float
    linear: bool


def find_groups(traced: GraphModule, ops: Sequence[FusedOp]) -> tuple[ChannelGroup, ...]:
    """Return the groups of tensors that may be rescaled, in topological order."""
    (source,) = traced.graph.find_nodes(op="placeholder")
    tied: dict[Node, list[Node]] = {node: [node] for node in [source, *(u.output for u in ops)]}
    for op in ops:
        if op.kind in {"add", "pool", "multiply"} or op.moves_values:
            ends = _signal_and_gate(op)[:1] if op.kind == "multiply" else op.activations
            merged: list[Node] = []
            for node in (*ends, op.output):
                merged.extend(n for n in tied[node] if n not in merged)
            for node in merged:
                tied[node] = merged
    groups = {id(nodes): tuple(nodes) for nodes in tied.values()}
    found = (_group(nodes, ops, source) for nodes in groups.values())
    return tuple(group for group in found if group is not None)


def _group(nodes: tuple[Node, ...], ops: Sequence[FusedOp], source: Node) -> ChannelGroup | None:
    """Return the group that these tensors form, or None where something minds the factor."""
    makers = [op for op in ops if op.output in nodes]
    readers = [op for op in ops if any(a in nodes for a in op.activations)]
    producers = tuple(op for op in makers if op.has_weight)
    consumers = tuple(op for op in readers if op.has_weight)
    leaves_network = any(user.op == "output" for node in nodes for user in node.users)
    gates = any(op.kind == "multiply" and _signal_and_gate(op)[1] in nodes for op in readers)
    curved = any(op.kind == "hardswish" for op in (*makers, *readers))
    bounds = [op.clamp for op in makers if op.clamp is not None]
    ceiling = min((high for _, high in bounds), default=float("inf"))
    if source in nodes or leaves_network or gates or curved or not consumers:
        return None
    return ChannelGroup(nodes, producers, consumers, ceiling, linear=not bounds)


def _signal_and_gate(product: FusedOp) -> tuple[Node, Node]:
    """Return a product's factors: the tensor, and what each of its channels is multiplied by."""
    gate, signal = sorted(product.activations, key=lambda node: node.meta["val"].numel())
    return signal, gate


def rescale_all(
    traced: GraphModule,
    scaled: Iterable[tuple[ChannelGroup, torch.Tensor]],
    observed: Mapping[str, ActivationStats],
) -> dict[str, ActivationStats]:
    """Rescale groups, in place; return what the network's tensors show now, by node name.

    Args:
        traced: The graph that owns the weights.
        scaled: Groups of it, each with its s.
        observed: What the tensors showed before.
    """
    shown = dict(observed)
    for group, factor in scaled:
        rescale(traced, group, factor)
        shown |= {node.name: observed[node.name].divided_by(factor.numpy()) for node in group.nodes}
    return shown


def rescale(traced: GraphModule, group: ChannelGroup, factor: torch.Tensor) -> None:
    """Make a group's channels x / s, in place.

    Args:
        traced: The graph that owns the weights.
        group: Of it.
        factor: s, (channels,), float32.
    """
    for op in group.producers:
        weight, bias = weight_and_bias(traced, op)
        weight.copy_(weight / factor.view(-1, *[1] * (weight.dim() - 1)))
        bias.copy_(bias / factor)
    for op in group.consumers:
        weight, _ = weight_and_bias(traced, op)
        groups = groups_of(op.operator)
        read = factor.view(groups, 1, -1)  # the factors of what each group's outputs read
        read = read.expand(-1, weight.shape[0] // groups, -1).reshape(weight.shape[:2])
        weight.copy_(weight * read.view(*weight.shape[:2], *[1] * (weight.dim() - 2)))
