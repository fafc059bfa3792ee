"""Helpers of the passes: find nodes, read constants and add them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from mobiledeploy.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray


def nodes_of(model: ir.Model, *op_types: str) -> Iterator[ir.Node]:
    """Yield the nodes of these types; the graph may be changed during the iteration."""
    return (node for node in list(model.graph) if node.op_type in op_types)


def constant(value: ir.Value | None) -> NDArray[np.generic]:
    """Return the value of an initializer.

    Raises:
        ExportError: the value is not a constant.
    """
    if value is None or value.const_value is None:
        raise ExportError(f"Expected a constant in the exported graph, found {value}.")
    return value.const_value.numpy()


def add_constant(graph: ir.Graph, name: str, array: NDArray[np.generic]) -> ir.Value:
    """Register an initializer, or return the one that already has this name."""
    if name not in graph.initializers:
        graph.register_initializer(ir.val(name, const_value=ir.tensor(array, name=name)))
    return graph.initializers[name]


def only_user(value: ir.Value) -> ir.Node:
    """Return the only node that reads a value.

    Raises:
        ExportError: no node reads it, or more than one does.
    """
    users = [usage.node for usage in value.uses()]
    if len(users) != 1:
        raise ExportError(f"Expected one reader of {value.name}, found {len(users)}.")
    return users[0]


def producer(value: ir.Value | None) -> ir.Node:
    """Return the node that computes a value.

    Raises:
        ExportError: it is an input or a constant.
    """
    node = value.producer() if value is not None else None
    if node is None:
        raise ExportError(f"Expected {value} to be computed.")
    return node


def is_dequantized(value: ir.Value | None) -> bool:
    """Return whether a value comes from a DequantizeLinear; weights of float layers do not."""
    node = value.producer() if value is not None else None
    return node is not None and node.op_type == "DequantizeLinear"


def same_encoding(one: ir.Node, other: ir.Node) -> bool:
    """Return whether two Quantize- or DequantizeLinear nodes have equal scales and zero-points."""
    return all(constant(one.inputs[i]) == constant(other.inputs[i]) for i in (1, 2))
