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

from mobiledeploy.graph import groups_of, weight_and_bias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch.fx import GraphModule, Node

    from mobiledeploy.graph import Unit
    from mobiledeploy.types import Observed


@dataclass(frozen=True, slots=True)
class ChannelGroup:
    """Tensors whose channels must be scaled together, and the operators on both sides of them.

    Attributes:
        ceiling: What no scaled channel may exceed: 6 behind a ReLU6, else infinity.
        linear: Whether no ReLU makes any of them, also behind an addition: signs may change then.
    """

    nodes: tuple[Node, ...]
    producers: tuple[Unit, ...]
    consumers: tuple[Unit, ...]
    ceiling: float
    linear: bool


def find_groups(traced: GraphModule, units: Sequence[Unit]) -> tuple[ChannelGroup, ...]:
    """Return the groups of tensors that may be rescaled, in topological order."""
    (source,) = traced.graph.find_nodes(op="placeholder")
    tied: dict[Node, list[Node]] = {node: [node] for node in [source, *(u.output for u in units)]}
    for unit in units:
        if unit.kind in {"add", "pool", "multiply"} or unit.moves_values:
            ends = _signal_and_gate(unit)[:1] if unit.kind == "multiply" else unit.activations
            merged: list[Node] = []
            for node in (*ends, unit.output):
                merged.extend(n for n in tied[node] if n not in merged)
            for node in merged:
                tied[node] = merged
    groups = {id(nodes): tuple(nodes) for nodes in tied.values()}
    found = (_group(nodes, units, source) for nodes in groups.values())
    return tuple(group for group in found if group is not None)


def _group(nodes: tuple[Node, ...], units: Sequence[Unit], source: Node) -> ChannelGroup | None:
    """Return the group that these tensors form, or None where something minds the factor."""
    makers = [unit for unit in units if unit.output in nodes]
    readers = [unit for unit in units if any(a in nodes for a in unit.activations)]
    producers = tuple(unit for unit in makers if unit.has_weight)
    consumers = tuple(unit for unit in readers if unit.has_weight)
    leaves_network = any(user.op == "output" for node in nodes for user in node.users)
    gates = any(unit.kind == "multiply" and _signal_and_gate(unit)[1] in nodes for unit in readers)
    curved = any(unit.kind == "hardswish" for unit in (*makers, *readers))
    bounds = [unit.clamp for unit in makers if unit.clamp is not None]
    ceiling = min((high for _, high in bounds), default=float("inf"))
    if source in nodes or leaves_network or gates or curved or not consumers:
        return None
    return ChannelGroup(nodes, producers, consumers, ceiling, linear=not bounds)


def _signal_and_gate(product: Unit) -> tuple[Node, Node]:
    """Return a product's factors: the tensor, and what each of its channels is multiplied by."""
    gate, signal = sorted(product.activations, key=lambda node: node.meta["val"].numel())
    return signal, gate


def rescale_all(
    traced: GraphModule,
    scaled: Iterable[tuple[ChannelGroup, torch.Tensor]],
    observed: Mapping[str, Observed],
) -> dict[str, Observed]:
    """Rescale groups, in place; return what the network's tensors show now, by node name.

    Args:
        traced: The graph that owns the weights.
        scaled: Groups of it, each with its s.
        observed: What the tensors showed before.
    """
    shown = dict(observed)
    for group, factor in scaled:
        rescale(traced, group, factor)
        shown |= {node.name: observed[node.name].divided(factor.numpy()) for node in group.nodes}
    return shown


def rescale(traced: GraphModule, group: ChannelGroup, factor: torch.Tensor) -> None:
    """Make a group's channels x / s, in place.

    Args:
        traced: The graph that owns the weights.
        group: Of it.
        factor: s, (channels,), float32.
    """
    for unit in group.producers:
        weight, bias = weight_and_bias(traced, unit)
        weight.copy_(weight / factor.view(-1, *[1] * (weight.dim() - 1)))
        bias.copy_(bias / factor)
    for unit in group.consumers:
        weight, _ = weight_and_bias(traced, unit)
        groups = groups_of(unit.operator)
        read = factor.view(groups, 1, -1)  # the factors of what each group's outputs read
        read = read.expand(-1, weight.shape[0] // groups, -1).reshape(weight.shape[:2])
        weight.copy_(weight * read.view(*weight.shape[:2], *[1] * (weight.dim() - 2)))
