"""The folded network as a flat graph of ATen operators, and what in it becomes one int8 operator.

In: a `FoldedModel`. Out: an `fx.GraphModule` that owns its weights, its `FusedOp`s (an operator
with the activation that its requantization performs) and its `SharedEncoding`s (activations that
share one encoding). `equalize` and `quantize` both work on this form.  Invariant: the traced
graph computes what the module computes, on any batch size; every operator in it belongs to
exactly one unit, so nothing can stay float unnoticed.
"""

from __future__ import annotations

import copy
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import torch

from mobiledeploy.errors import ExportError
from mobiledeploy.utils.quiet import quietly

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.fx import GraphModule, Node

    from mobiledeploy.network import FoldedModel

aten = torch.ops.aten

Kind = Literal["convolution", "linear", "add", "multiply", "pool", "hardswish", "pad", "reshape"]

_KINDS: dict[object, Kind] = {
    aten.conv2d.default: "convolution",
    aten.linear.default: "linear",
    aten.add.Tensor: "add",
    aten.mul.Tensor: "multiply",
    aten.adaptive_avg_pool2d.default: "pool",
    aten.hardswish.default: "hardswish",
    aten.pad.default: "pad",
    aten.flatten.using_ints: "reshape",
}
# Operators that overwrite their operand, which somebody may still want to look at.
_IN_PLACE: dict[object, torch._ops.OpOverload] = {
    aten.add_.Tensor: aten.add.Tensor,
    aten.relu_.default: aten.relu.default,
    aten.relu6_.default: aten.relu6.default,
    aten.hardtanh_.default: aten.hardtanh.default,
    aten.hardswish_.default: aten.hardswish.default,
    aten.hardsigmoid_.default: aten.hardsigmoid.default,
}
_HARDTANH = (aten.hardtanh.default, aten.relu6.default)


@dataclass(frozen=True, slots=True)
class FusedOp:
    """One int8 operator: `operator`, followed by the clamp that its saturation can perform.

    Attributes:
        output: The node whose value leaves the unit: `operator` itself, or the activation after it.
        clamp: (low, high) of that activation; None where there is none.
    """

    kind: Kind
    operator: Node
    output: Node
    clamp: tuple[float, float] | None

    @property
    def has_weight(self) -> bool:
        """Return whether the unit multiplies by a constant weight."""
        return self.kind in {"convolution", "linear"}

    @property
    def activations(self) -> tuple[Node, ...]:
        """Return the operands that are activations, in order."""
        count = 2 if self.kind in {"add", "multiply"} else 1
        return cast("tuple[Node, ...]", self.operator.args[:count])

    @property
    def moves_values(self) -> bool:
        """Return whether the unit computes nothing: its output is its input's values, and zeros."""
        return self.kind in {"pad", "reshape"}


@dataclass(frozen=True, slots=True)
class SharedEncoding:
    """Activations that share one encoding: a residual stream, or a single tensor.

    Attributes:
        name: The name of its last node; the key of its encoding.
        nodes: In topological order.
        clamp: The tightest bounds that hold for all of them.
    """

    name: str
    nodes: tuple[Node, ...]
    clamp: tuple[float, float]


def trace(model: FoldedModel) -> GraphModule:
    """Return the folded module as a flat ATen graph with weights of its own.

    Dropout is gone, nothing is computed in place, and hard-sigmoids have become part of the
    convolutions before them. A module that is such a graph already is copied.

    Raises:
        ExportError: a hard-sigmoid does not follow a convolution that only it reads.
    """
    with quietly():  # copying a graph warns about torch's own pytree
        module = copy.deepcopy(model.module).eval()
    if isinstance(module, torch.fx.GraphModule):
        return module
    with quietly():
        program = torch.export.export(module, (torch.zeros(model.info.input.shape),))
        unlifted = program.module(check_guards=False)
    # a graph module of our own, without the hook that holds the input to a batch of one
    traced = torch.fx.GraphModule(unlifted, unlifted.graph)
    for node in traced.graph.find_nodes(op="call_function", target=aten.dropout.default):
        node.replace_all_uses_with(cast("Node", node.args[0]))
        traced.graph.erase_node(node)
    for node in traced.graph.nodes:
        node.target = _IN_PLACE.get(node.target, node.target)
    for node in traced.graph.find_nodes(op="call_function", target=aten.hardsigmoid.default):
        _absorb_hard_sigmoid(traced, node)
    traced.recompile()
    return traced


def find_fused_ops(traced: GraphModule) -> tuple[FusedOp, ...]:
    """Return the graph's units in topological order.

    Raises:
        ExportError: an operator belongs to no unit, so it has no int8 form.
    """
    ops: list[FusedOp] = []
    inside: set[Node] = set()
    for node in traced.graph.nodes:
        if node.op != "call_function" or node in inside:
            continue
        kind = _kind_of(node)
        if kind is None:
            raise ExportError(
                f"The operator {node.target} (node {node.name}) has no int8 form here.",
                remedy="Export without --int8, or express it by convolution, linear, add, multiply,"
                " zero padding, global average pooling, ReLU, ReLU6, hard-swish or hard-sigmoid.",
            )
        activation = _only_user(node) if kind in {"convolution", "linear", "add"} else None
        clamp = clamp_of(activation) if activation is not None else None
        output = activation if clamp is not None and activation is not None else node
        inside.update((node, output))
        ops.append(FusedOp(kind, node, output, clamp))
    return tuple(ops)


def find_shared_encodings(
    traced: GraphModule, ops: Sequence[FusedOp]
) -> tuple[SharedEncoding, ...]:
    """Group activations that share an encoding; return the groups in topological order.

    Residual adds, pads and reshapes are exact in any runtime when their operands and result share
    one encoding: the add is integer addition with saturation, the others move bytes (what a pad
    adds is the zero-point's code).
    """
    (source,) = traced.graph.find_nodes(op="placeholder")
    outputs = [source, *(op.output for op in ops)]
    group: dict[Node, list[Node]] = {node: [node] for node in outputs}
    for op in ops:
        if op.kind == "add" or op.moves_values:
            merged: list[Node] = []
            for node in (*op.activations, op.output):
                merged.extend(n for n in group[node] if n not in merged)
            for node in merged:
                group[node] = merged
    moved = {op.output for op in ops if op.moves_values}  # without bounds of their own
    clamps = {op.output: op.clamp for op in ops}
    shared_encodings: dict[int, SharedEncoding] = {}
    for node in outputs:
        members = tuple(sorted(group[node], key=outputs.index))
        makers = [n for n in members if n not in moved]
        bounds = [clamps.get(n) or (-float("inf"), float("inf")) for n in makers]
        clamp = (min(low for low, _ in bounds), max(high for _, high in bounds))
        shared_encodings.setdefault(
            id(group[node]), SharedEncoding(members[-1].name, members, clamp)
        )
    return tuple(shared_encodings.values())


def parameter(traced: GraphModule, node: object) -> torch.nn.Parameter:
    """Return the parameter that a `get_attr` node reads."""
    assert isinstance(node, torch.fx.Node), node
    assert node.op == "get_attr", node
    return cast("torch.nn.Parameter", operator.attrgetter(str(node.target))(traced))


def weight_and_bias(traced: GraphModule, op: FusedOp) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a unit's weight (out, in / groups, kH, kW) or (out, in), and its bias (out,).

    A missing bias is added to the graph as zeros first, so that corrections have a place to go.
    """
    node = op.operator
    if len(node.args) < 3 or node.args[2] is None:
        weight_node = cast("torch.fx.Node", node.args[1])
        name = f"{op.operator.name}_bias"
        zeros = torch.zeros(parameter(traced, weight_node).shape[0])
        traced.register_parameter(name, torch.nn.Parameter(zeros, requires_grad=False))
        with traced.graph.inserting_after(weight_node):
            bias_node = traced.graph.get_attr(name)
        node.args = (*node.args[:2], bias_node, *node.args[3:])
        traced.recompile()
    return parameter(traced, node.args[1]).data, parameter(traced, node.args[2]).data


def groups_of(node: Node) -> int:
    """Return the groups of a convolution; 1 of a linear layer."""
    return cast("int", node.args[6]) if len(node.args) > 6 else 1


def _kind_of(node: Node) -> Kind | None:
    """Return what an operator is in integers; None where it is nothing that we know."""
    kind = _KINDS.get(node.target)
    return kind if kind != "pad" or _is_zero_padding(node) else None


def _is_zero_padding(node: Node) -> bool:
    """Return whether a pad adds zeros: it neither mirrors nor crops."""
    amounts, settings = cast("list[int]", node.args[1]), node.args[2:]  # mode and value, if given
    return min(amounts) >= 0 and all(each in ("constant", None, 0.0) for each in settings)


def _only_user(node: Node) -> Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def clamp_of(node: Node) -> tuple[float, float] | None:
    """Return the bounds of a ReLU-like activation, or None if the node is none."""
    if node.target is aten.relu.default:
        return (0.0, float("inf"))
    if node.target in _HARDTANH:
        bounds = node.args[1:] or (0.0, 6.0)
        return (float(cast("float", bounds[0])), float(cast("float", bounds[1])))
    return None


def _absorb_hard_sigmoid(traced: GraphModule, node: Node) -> None:
    """Turn a convolution + hard-sigmoid into a convolution clamped to [0, 1], in place.

    hard-sigmoid(y) = relu6(y + 3) / 6 = clamp(y / 6 + 1/2, 0, 1)

    so it is the convolution with W / 6 and b / 6 + 1/2, clamped: one int8 operator whose saturation
    is the activation (MobileNetV3, section 5.2; the gate of squeeze-and-excitation is its one use).
    """
    convolution = cast("Node", node.args[0])
    if convolution.target is not aten.conv2d.default or len(convolution.users) != 1:
        raise ExportError(
            f"The hard-sigmoid {node.name} follows {convolution.target}, not a convolution of its"
            " own, and has no int8 form.",
            remedy="Export without --int8.",
        )
    weight, bias = weight_and_bias(traced, FusedOp("convolution", convolution, node, None))
    weight.div_(6)
    bias.div_(6).add_(0.5)
    node.target = aten.hardtanh.default
    node.args = (convolution, 0.0, 1.0)
    node.kwargs = {}


def module_of(node: Node) -> str:
    """Return the module that an operator was traced in, such as "features.3.conv"; "" if none."""
    modules = [name for name, _ in node.meta.get("nn_module_stack", {}).values()]
    return modules[-1] if modules else ""
