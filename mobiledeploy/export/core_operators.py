"""Write a program in core ATen operators, so that an exporter need not decompose it.

In: a program of MobileNet's operators. Out: the program that PyTorch's decomposition gives, without
its cost: it traces the whole network (1.5 s for MobileNetV2), to replace three operators.
An operator that is not in the table stays, and is decomposed as before.
Source: `torch._decomp`.
"""

from __future__ import annotations

import copy
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.fx import Graph, GraphModule

from mobiledeploy.graph.rewriting import shape_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch.fx import Node

aten = torch.ops.aten


def in_core_operators(program: ExportedProgram) -> ExportedProgram:
    """Return a copy of a program in core ATen operators, as far as they are MobileNet's."""
    copied = _copied(program)
    for node in copied.graph.nodes:
        if node.op == "call_function" and node.target in _REWRITES:
            _REWRITES[node.target](node)
    copied.graph_module.recompile()
    return copied


@contextmanager
def without_idle_decompositions() -> Iterator[None]:
    """Make PyTorch return a program as it is, inside the context, if nothing is to be decomposed.

    A program that changes a tensor in place is always decomposed, which makes it functional, and so
    is one with an operator that may or may not return a view, such as `reshape`.
    """
    decompose: Callable[..., ExportedProgram] = ExportedProgram.run_decompositions

    def decompose_if_needed(
        self: ExportedProgram, table: Mapping[object, Any] | None = None, **options: Any
    ) -> ExportedProgram:
        calls = [node for node in self.graph.nodes if node.op == "call_function"]
        if table is not None and not any(_must_go(node) or node.target in table for node in calls):
            return self
        return decompose(self, table, **options)

    with patch.object(ExportedProgram, "run_decompositions", decompose_if_needed):
        yield


def _must_go(node: Node) -> bool:
    """Return whether decomposition replaces an operator that no table names."""
    operator = node.target
    if not isinstance(operator, OpOverload):
        return False
    schema = operator._schema  # noqa: SLF001 - it has no public name
    aliases = any(argument.alias_info is not None for argument in schema.arguments)
    return schema.is_mutable or (aliases and operator._can_decompose())  # noqa: SLF001 - as above


def _copied(program: ExportedProgram) -> ExportedProgram:
    """Return a copy with nodes of its own; exporters take tensors out of a program's tables."""
    graph = Graph()
    copies: dict[Node, Node] = {}
    graph.output(graph.graph_copy(program.graph, copies))
    for node, own in copies.items():
        own.name = node.name  # also where it is Python's, such as "input"
    module = GraphModule(program.graph_module, graph)
    module.meta.update(program.graph_module.meta)
    return ExportedProgram(
        root=module,
        graph=module.graph,
        graph_signature=copy.deepcopy(program.graph_signature),
        state_dict=dict(program.state_dict),
        range_constraints=program.range_constraints,
        module_call_graph=program.module_call_graph,
        example_inputs=program.example_inputs,
        constants=dict(program.constants),
        verifiers=program.verifiers,
    )


def _convolution(node: Node) -> None:
    """Name the operator that is a convolution of any rank, transposed or not."""

    def operands(
        x: Node,
        weight: Node,
        bias: Node | None = None,
        stride: tuple[int, ...] = (1, 1),
        padding: tuple[int, ...] = (0, 0),
        dilation: tuple[int, ...] = (1, 1),
        groups: int = 1,
    ) -> tuple[Any, ...]:
        return (x, weight, bias, stride, padding, dilation, False, (0, 0), groups)

    node.target = aten.convolution.default
    node.args = operands(*node.args, **node.kwargs)  # type: ignore[arg-type]
    node.kwargs = {}


def _mean(node: Node) -> None:
    """Express pooling to one pixel as a mean."""
    x, size = node.args
    if tuple(size) == (1, 1):  # type: ignore[arg-type]
        node.target, node.args = aten.mean.dim, (x, (-1, -2), True)


def _view(node: Node) -> None:
    """Express a flattening by the shape that results."""
    node.target, node.args, node.kwargs = aten.view.default, (node.args[0], shape_of(node)), {}


_REWRITES: Mapping[object, Callable[[Node], None]] = {
    aten.conv2d.default: _convolution,
    aten.adaptive_avg_pool2d.default: _mean,
    aten.flatten.using_ints: _view,
}
