"""The int8 operators of an ATen graph: an operator, and the activation that saturation performs.

Invariant: every operator of the graph belongs to exactly one `FusedOp`, so that no operator stays
in float unnoticed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import torch

from mobiledeploy.errors import ExportError
from mobiledeploy.graph.nodes import (
    clamp_of,
    describe_node,
    is_plain_max_pool,
    is_zero_padding,
    module_of,
    only_user,
    parameter,
)

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

aten = torch.ops.aten

Kind = Literal[
    "convolution",
    "linear",
    "add",
    "multiply",
    "pool",
    "maxpool",
    "hardswish",
    "sigmoid",
    "clamp",
    "pad",
    "reshape",
    "permute",
    "slice",
    "concatenate",
    "upsample",
]

_KINDS: dict[object, Kind] = {
    aten.conv2d.default: "convolution",
    aten.linear.default: "linear",
    aten.add.Tensor: "add",
    aten.mul.Tensor: "multiply",
    aten.adaptive_avg_pool2d.default: "pool",
    aten.max_pool2d.default: "maxpool",
    aten.hardswish.default: "hardswish",
    aten.sigmoid.default: "sigmoid",
    aten.relu.default: "clamp",
    aten.relu6.default: "clamp",
    aten.hardtanh.default: "clamp",
    aten.pad.default: "pad",
    aten.flatten.using_ints: "reshape",
    aten.reshape.default: "reshape",
    aten.permute.default: "permute",
    aten.slice.Tensor: "slice",
    aten.cat.default: "concatenate",
    aten.upsample_nearest2d.vec: "upsample",
}
_MOVES = frozenset({"pad", "reshape", "maxpool", "permute", "slice", "concatenate", "upsample"})
_INT8_OPERATORS = (
    "Export without --int8, or use only the operators that docs/reference/operators.md lists."
)
_SOFTMAX = (aten.softmax.int, aten.log_softmax.int)
_PROBABILITIES = (
    "Return the logits, and pass --activation softmax or compute it in the app, as"
    " docs/how-to/use-in-an-app.md shows; or export without --int8."
)
OPAQUE = 255.0
"""The alpha of an opaque pixel."""
OPAQUE_CHANNELS = "opaque_channels"
"""Marks the metadata of the pad that `fold_preprocessing` adds: it appends channels of 255."""


@dataclass(frozen=True, slots=True)
class FusedOp:
    """One int8 operator: an ATen operator and the activation that its saturation performs.

    Attributes:
        kind: What the operator computes.
        operator: The node of the operator.
        output: The node whose value is quantized: `operator`, or the activation behind it.
        clamp: Bounds (low, high) of that activation; None if there is no activation.
    """

    kind: Kind
    operator: Node
    output: Node
    clamp: tuple[float, float] | None

    @property
    def name(self) -> str:
        """Return the name of the operator's node, the key of weights and scales."""
        return self.operator.name

    @property
    def layer(self) -> str:
        """Return the layer's name: its module, for example "features.3.conv.2", or its `name`."""
        return module_of(self.operator) or self.name

    @property
    def has_weight(self) -> bool:
        """Return whether the operator multiplies by a constant weight."""
        return self.kind in {"convolution", "linear"}

    @property
    def activations(self) -> tuple[Node, ...]:
        """Return the nodes of the operands that are activations, in order."""
        if self.kind == "concatenate":
            return tuple(cast("list[Node]", self.operator.args[0]))
        count = 2 if self.kind in {"add", "multiply"} else 1
        return cast("tuple[Node, ...]", self.operator.args[:count])

    @property
    def moves_values(self) -> bool:
        """Return whether the output holds only input values, zeros and opaque alpha."""
        return self.kind in _MOVES

    @property
    def shares_encoding(self) -> bool:
        """Return whether operands and result must have one encoding."""
        return self.kind in {"add", "clamp"} or self.moves_values


def find_fused_ops(traced: GraphModule) -> tuple[FusedOp, ...]:
    """Return the int8 operators of a traced graph, in topological order.

    Raises:
        ExportError: an operator has no int8 form.
    """
    ops: list[FusedOp] = []
    fused: set[Node] = set()
    for node in traced.graph.nodes:
        if node.op != "call_function" or node in fused:
            continue
        kind = _kind_of(node)
        if kind is None:
            raise ExportError(
                f"The operator {describe_node(node)} has no int8 form.",
                remedy=_PROBABILITIES if _ends_in_softmax(node) else _INT8_OPERATORS,
            )
        activation = _activation_of(kind, node)
        clamp = clamp_of(activation or node)
        output = activation if clamp is not None and activation is not None else node
        fused.update((node, output))
        ops.append(FusedOp(kind, node, output, clamp))
    return tuple(ops)


def weight_and_bias(traced: GraphModule, op: FusedOp) -> tuple[torch.Tensor, torch.Tensor]:
    """Return an operator's weight (out, in / groups, kH, kW) or (out, in), and its bias (out,).

    Both are the graph's own tensors. If the operator has no bias, zeros are added to the graph
    first, because bias correction needs one.
    """
    node = op.operator
    if len(node.args) < 3 or node.args[2] is None:
        weight_node = cast("torch.fx.Node", node.args[1])
        name = f"{op.name}_bias"
        zeros = torch.zeros(parameter(traced, weight_node).shape[0])
        traced.register_parameter(name, torch.nn.Parameter(zeros, requires_grad=False))
        with traced.graph.inserting_after(weight_node):
            bias_node = traced.graph.get_attr(name)
        node.args = (*node.args[:2], bias_node, *node.args[3:])
        traced.recompile()
    return parameter(traced, node.args[1]).data, parameter(traced, node.args[2]).data


def _kind_of(node: Node) -> Kind | None:
    """Return the int8 kind of an operator; None if it has none."""
    kind = _KINDS.get(node.target)
    if kind == "pad" and not (is_zero_padding(node) or OPAQUE_CHANNELS in node.meta):
        return None
    if kind in {"add", "multiply"} and not _joins_activations(node):
        return None
    if kind == "pool" and list(cast("list[int]", node.args[1])) != [1, 1]:
        return None
    if kind in {"concatenate", "slice", "permute", "reshape"} and not _keeps_images_apart(node):
        return None
    return kind if kind != "maxpool" or is_plain_max_pool(node) else None


def _joins_activations(node: Node) -> bool:
    """Return whether an addition or product has two activations, and no factor such as alpha."""
    activations = [each for each in node.all_input_nodes if each.op != "get_attr"]
    given = [each for each in node.args if each in activations]
    return len(given) == len(node.args) == 2 and not node.kwargs


def _keeps_images_apart(node: Node) -> bool:
    """Return whether an operator that copies values keeps the first axis, and copies no weights."""
    if any(each.op == "get_attr" for each in node.all_input_nodes):
        return False
    arguments = (*node.args[1:], 0)
    if node.target is aten.permute.default:
        return cast("list[int]", arguments[0])[0] == 0
    if node.target is aten.reshape.default:
        source = cast("Node", node.args[0])
        return bool(node.meta["val"].shape[0] == source.meta["val"].shape[0])
    return node.target is aten.flatten.using_ints or cast("int", arguments[0]) != 0


def _activation_of(kind: Kind, node: Node) -> Node | None:
    """Return the activation behind an operator whose saturation performs it; None for none.

    The scale of a product has to avoid half-way results. It can be widened beyond the range, so
    only ReLU, which has no upper bound, is left to saturation.
    """
    user = only_user(node)
    clamp = None if user is None else clamp_of(user)
    if clamp is None or kind not in {"convolution", "linear", "add", "multiply"}:
        return None
    return user if kind != "multiply" or clamp == (0.0, float("inf")) else None


def _ends_in_softmax(node: Node) -> bool:
    return node.target in _SOFTMAX and all(user.op == "output" for user in node.users)
