"""The folded network as a flat graph of ATen operators, grouped into int8 operators.

Input: a `FoldedModel`. Output: an `fx.GraphModule` that owns its weights, its `FusedOp`s (one
operator and the activation that its saturation performs) and its `SharedEncoding`s (activations
that share one scale and zero-point). Equalization and quantization both work on this form.
Maths: hard-sigmoid(W x + b) = clamp((W / 6) x + b / 6 + 1/2, 0, 1), so the gate of
squeeze-and-excitation becomes a convolution with a clamp (Howard et al., "Searching for
MobileNetV3" (2019), section 5.2).
Invariant: the graph computes what the module computes, at any batch size, and every operator
belongs to exactly one `FusedOp`, so that no operator stays in float unnoticed.
"""

from __future__ import annotations

import copy
import operator
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import torch

from mobiledeploy.errors import ExportError
from mobiledeploy.utils.quiet import quietly

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch.fx import Graph, GraphModule, Node

    from mobiledeploy.stages import FoldedModel

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
# Operators that overwrite their operand. They become out-of-place, so that every value of the graph
# can be observed.
OUT_OF_PLACE: dict[object, torch._ops.OpOverload] = {
    aten.add_.Tensor: aten.add.Tensor,
    aten.sub_.Tensor: aten.sub.Tensor,
    aten.mul_.Tensor: aten.mul.Tensor,
    aten.div_.Tensor: aten.div.Tensor,
    aten.clamp_.default: aten.clamp.default,
    aten.sigmoid_.default: aten.sigmoid.default,
    aten.tanh_.default: aten.tanh.default,
    aten.silu_.default: aten.silu.default,
    aten.leaky_relu_.default: aten.leaky_relu.default,
    aten.relu_.default: aten.relu.default,
    aten.relu6_.default: aten.relu6.default,
    aten.hardtanh_.default: aten.hardtanh.default,
    aten.hardswish_.default: aten.hardswish.default,
    aten.hardsigmoid_.default: aten.hardsigmoid.default,
}
_INT8_OPERATORS = (
    "Export without --int8, or use only the operators that docs/reference/operators.md lists."
)
_SOFTMAX = (aten.softmax.int, aten.log_softmax.int)
_PROBABILITIES = (
    "Return the logits, and pass --activation softmax or compute it in the app, as"
    " docs/how-to/use-in-an-app.md shows; or export without --int8."
)
_HARDTANH = (aten.hardtanh.default, aten.relu6.default)
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


def trace(model: FoldedModel) -> GraphModule:
    """Return the folded module as a flat ATen graph with its own copy of the weights.

    Removes dropout, replaces in-place operators and folds every hard-sigmoid into the convolution
    before it. A module that already is such a graph is copied.

    Raises:
        ExportError: a hard-sigmoid does not follow a convolution that has no other user.
    """
    with quietly():  # copying a graph warns about torch's own pytree
        module = copy.deepcopy(model.module).eval()
    if isinstance(module, torch.fx.GraphModule):
        return module
    with quietly():
        program = torch.export.export(module, (torch.zeros(model.info.input.shape),))
        unlifted = program.module(check_guards=False)
    # A new graph module, without the exported program's hook that fixes the batch size to one.
    traced = torch.fx.GraphModule(unlifted, unlifted.graph)
    for node in traced.graph.find_nodes(op="call_function", target=aten.dropout.default):
        node.replace_all_uses_with(cast("Node", node.args[0]))
        traced.graph.erase_node(node)
    for node in traced.graph.nodes:
        node.target = OUT_OF_PLACE.get(node.target, node.target)
    fold_hard_sigmoids(traced)
    traced.recompile()
    return traced


def fold_hard_sigmoids(traced: GraphModule) -> None:
    """Fold every hard-sigmoid into the convolution before it, in place.

    Raises:
        ExportError: one does not follow a convolution that has no other user.
    """
    for node in traced.graph.find_nodes(op="call_function", target=aten.hardsigmoid.default):
        _fold_hard_sigmoid(traced, node)


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


def outputs_of(graph: Graph) -> tuple[Node, ...]:
    """Return the nodes that are the outputs of a graph, in order."""
    (output,) = graph.find_nodes(op="output")
    (result,) = output.args
    return tuple(result) if isinstance(result, list | tuple) else (result,)


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


def parameter(traced: GraphModule, node: object) -> torch.nn.Parameter:
    """Return the parameter that a `get_attr` node reads."""
    assert isinstance(node, torch.fx.Node), node
    assert node.op == "get_attr", node
    return cast("torch.nn.Parameter", operator.attrgetter(str(node.target))(traced))


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


def groups_of(node: Node) -> int:
    """Return the number of groups of a convolution, and 1 for a linear operator."""
    return cast("int", node.args[6]) if len(node.args) > 6 else 1


def _activation_of(kind: Kind, node: Node) -> Node | None:
    """Return the activation behind an operator whose saturation performs it; None for none.

    The scale of a product has to avoid half-way results. It can be widened beyond the range, so
    only ReLU, which has no upper bound, is left to saturation.
    """
    user = _only_user(node)
    clamp = None if user is None else clamp_of(user)
    if clamp is None or kind not in {"convolution", "linear", "add", "multiply"}:
        return None
    return user if kind != "multiply" or clamp == (0.0, float("inf")) else None


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


def _ends_in_softmax(node: Node) -> bool:
    return node.target in _SOFTMAX and all(user.op == "output" for user in node.users)


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


def is_plain_max_pool(node: Node) -> bool:
    """Return whether a max pool has neither dilation nor windows that end outside the image."""
    dilation, ceil_mode = (*node.args[4:], 1, False)[:2]
    return dilation in (1, [1], [1, 1]) and not ceil_mode


def is_zero_padding(node: Node) -> bool:
    """Return whether a pad adds zeros, instead of reflecting, cropping or adding another value."""
    amounts, settings = cast("list[int]", node.args[1]), node.args[2:]  # mode and value, if any
    return min(amounts) >= 0 and all(each in ("constant", None, 0.0) for each in settings)


def _only_user(node: Node) -> Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def clamp_of(node: Node) -> tuple[float, float] | None:
    """Return the bounds (low, high) of a ReLU-like activation; None for any other node."""
    if node.target is aten.relu.default:
        return (0.0, float("inf"))
    if node.target in _HARDTANH:
        bounds = node.args[1:] or (0.0, 6.0)
        return (float(cast("float", bounds[0])), float(cast("float", bounds[1])))
    return None


def _fold_hard_sigmoid(traced: GraphModule, node: Node) -> None:
    """Replace convolution + hard-sigmoid by a convolution clamped to [0, 1], in place.

    hard-sigmoid(y) = relu6(y + 3) / 6 = clamp(y / 6 + 1/2, 0, 1): the convolution takes W / 6 and
    b / 6 + 1/2, and its saturation performs the clamp.
    """
    convolution = cast("Node", node.args[0])
    weighted = convolution.target in (aten.conv2d.default, aten.linear.default)
    if not weighted or len(convolution.users) != 1:
        raise ExportError(
            f"The operator {describe_node(node)} has no int8 form: it follows"
            f" {convolution.target}; expected a convolution or a linear layer without other users.",
            remedy="Export without --int8.",
        )
    weight, bias = weight_and_bias(traced, FusedOp("convolution", convolution, node, None))
    weight.div_(6)
    bias.div_(6).add_(0.5)
    node.target = aten.hardtanh.default
    node.args = (convolution, 0.0, 1.0)
    node.kwargs = {}


def module_of(node: Node) -> str:
    """Return the module that a node was traced in, for example "features.3.conv"; "" for none."""
    modules = [name for name, _ in node.meta.get("nn_module_stack", {}).values()]
    return modules[-1] if modules else ""


def describe_node(node: Node) -> str:
    """Return an operator, its module and its line of code, as far as they are known.

    For example: aten.silu in module features.1 (net.py, line 34: return F.silu(x)).
    """
    module = module_of(node)
    where = f" in module {module}" if module else f" (node {node.name})"
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    own = [frame for frame in frames if _TORCH not in Path(frame[0]).parents]
    code = "".join(f" ({path}, line {line}: {text.strip()})" for path, line, text in own[-1:])
    return f"{str(node.target).removesuffix('.default')}{where}{code}"


_FRAME = re.compile(r'File "([^"]+)", line (\d+), in [^\n]+\n([^\n]*)')
_TORCH = Path(torch.__file__).parent
