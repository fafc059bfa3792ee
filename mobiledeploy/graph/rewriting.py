"""Helpers of the passes that rewrite a flat ATen graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch.fx import GraphModule, Node


def calls(traced: GraphModule, targets: Iterable[object]) -> Sequence[Node]:
    """Return the nodes that call one of these operators, in topological order."""
    wanted = set(targets)
    return [node for node in traced.graph.nodes if node.target in wanted]


def replace(traced: GraphModule, node: Node, by: Node) -> None:
    """Replace a node by another one that computes the same."""
    node.replace_all_uses_with(by)
    traced.graph.erase_node(node)


def call_before(
    traced: GraphModule, node: Node, target: torch._ops.OpOverload, *args: object
) -> Node:
    """Insert a call in front of a node; it stands in the same module and line of code."""
    with traced.graph.inserting_before(node):
        call = traced.graph.call_function(target, args)  # type: ignore[arg-type]
    call.meta = {name: value for name, value in node.meta.items() if name != "val"}
    return call


def constant_before(traced: GraphModule, node: Node, suffix: str, value: torch.Tensor) -> Node:
    """Register a constant that is named after a node, and insert its `get_attr` in front of it."""
    name = f"{node.name}_{suffix}"
    traced.register_parameter(name, torch.nn.Parameter(value, requires_grad=False))
    with traced.graph.inserting_before(node):
        return traced.graph.get_attr(name)


def shape_of(node: Node) -> tuple[int, ...]:
    """Return the shape of a node's value for a batch of one."""
    return tuple(node.meta["val"].shape)
