"""The activations of an ATen graph that share one scale and zero-point.

Input: a traced graph and its int8 operators. Output: its `SharedEncoding`s. Every activation
belongs to exactly one of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch.fx import GraphModule, Node

    from mobiledeploy.graph.fused_ops import FusedOp


@dataclass(frozen=True, slots=True)
class SharedEncoding:
    """Activations with one scale and zero-point: a residual stream, or a single tensor.

    Attributes:
        name: Name of the last node; the key of the encoding.
        nodes: The activations, in topological order.
        clamp: The tightest bounds (low, high) that hold for all of them.
    """

    name: str
    nodes: tuple[Node, ...]
    clamp: tuple[float, float]

    @property
    def leaves_network(self) -> bool:
        """Return whether one of the activations is an output of the network."""
        return any(user.op == "output" for node in self.nodes for user in node.users)


def find_shared_encodings(
    traced: GraphModule, ops: Sequence[FusedOp]
) -> tuple[SharedEncoding, ...]:
    """Group the activations that must share one encoding, in topological order of their first node.

    An addition, a clamp, a pad or a reshape is exact in every runtime if its operands and its
    result share one encoding: the addition is an integer addition with saturation, clamp and max
    pool compare codes, the others copy codes, and a pad adds the code of zero, the zero-point.

    Args:
        traced: From `trace`.
        ops: From `find_fused_ops`.
    """
    (source,) = traced.graph.find_nodes(op="placeholder")
    outputs = [source, *(op.output for op in ops)]
    tied = ((*op.activations, op.output) for op in ops if op.shares_encoding)
    clamps = {op.output: op.clamp for op in ops}
    unbounded = {op.output for op in ops if op.moves_values}  # they keep their input's bounds
    position = {node: number for number, node in enumerate(outputs)}
    found = []
    for component in connected_components(outputs, tied):
        members = tuple(sorted(component, key=position.__getitem__))
        bounds = [
            clamps.get(node) or (-float("inf"), float("inf"))
            for node in members
            if node not in unbounded
        ]
        clamp = (min(low for low, _ in bounds), max(high for _, high in bounds))
        found.append(SharedEncoding(members[-1].name, members, clamp))
    return tuple(found)


def connected_components(
    nodes: Sequence[Node], tied: Iterable[Sequence[Node]]
) -> list[tuple[Node, ...]]:
    """Partition nodes into the connected components of a relation.

    Args:
        nodes: The nodes to partition, in order.
        tied: Groups of nodes that belong to one component.

    Returns:
        Components in the order of their first node, each in the order in which it was joined.
    """
    component = {node: [node] for node in nodes}
    for group in tied:
        merged = list(dict.fromkeys(n for node in group for n in component[node]))
        component.update(dict.fromkeys(merged, merged))
    unique = {id(members): members for members in component.values()}
    return [tuple(members) for members in unique.values()]
