"""BatchNorm folding in the graph of any module.

Input: a `FloatModel` of a module that is not one of ours. Output: a `FoldedModel` with a flat ATen
graph. Maths: as in `fold_batch_norm`. A BatchNorm that does not follow a convolution or a linear
layer of its own is a scale and an offset per channel, and becomes a depthwise 1x1 convolution, or a
diagonal linear layer.
Invariant: the function stays the same, and no BatchNorm remains.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, NamedTuple, cast

import torch

from mobiledeploy.errors import UsageError
from mobiledeploy.graph.aten_graph import fold_hard_sigmoids
from mobiledeploy.graph.canonical_graph import canonical_graph, record_shapes
from mobiledeploy.graph.fused_ops import FusedOp, weight_and_bias
from mobiledeploy.graph.nodes import describe_node, module_of, parameter
from mobiledeploy.graph.requantize import insert_requantizations
from mobiledeploy.graph.rewriting import calls
from mobiledeploy.stages import FoldedModel

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

    from mobiledeploy.stages import FloatModel

aten = torch.ops.aten

_WEIGHTED = {aten.conv2d.default: "convolution", aten.linear.default: "linear"}


class _Affine(NamedTuple):
    """A BatchNorm in inference: gain * x + offset per channel, in float64."""

    gain: torch.Tensor
    offset: torch.Tensor


def fold_graph(model: FloatModel) -> FoldedModel:
    """Fold every BatchNorm of a module's graph.

    Args:
        model: The model; it stays as it is.

    Raises:
        UsageError: the module cannot be traced, or has a BatchNorm that cannot be folded.
    """
    traced = canonical_graph(model.module, model.info.input.shape)
    for node in calls(traced, _WEIGHTED):  # a layer that runs twice becomes two
        _own_parameters(traced, node)
    folded = []
    for node in traced.graph.find_nodes(op="call_function", target=aten.batch_norm.default):
        affine = _affine(traced, node)
        source = cast("Node", node.args[0])
        if source.target in _WEIGHTED and len(source.users) == 1:
            _fold_into(traced, source, affine)
            folded.append(module_of(source) or source.name)
            node.replace_all_uses_with(source)
            traced.graph.erase_node(node)
        elif (reader := _linear_reader(node)) is not None:
            _fold_ahead(traced, reader, affine)
            folded.append(module_of(reader) or reader.name)
            node.replace_all_uses_with(source)
            traced.graph.erase_node(node)
        else:
            _become_depthwise(traced, node, affine)
    traced.graph.eliminate_dead_code()
    insert_requantizations(traced)
    fold_hard_sigmoids(traced)
    traced.delete_all_unused_submodules()
    traced.recompile()
    record_shapes(traced, torch.zeros(model.info.input.shape))
    for each in traced.parameters():
        each.requires_grad = False
    return FoldedModel(info=model.info, module=traced, folded_layers=tuple(folded))


def _affine(traced: GraphModule, node: Node) -> _Affine:
    """Return what a BatchNorm computes in inference.

    Raises:
        UsageError: it has no running statistics.
    """
    _, weight, bias, mean, variance, _, _, eps, *_ = node.args
    if mean is None or variance is None:
        raise UsageError(
            f"The BatchNorm {describe_node(node)} has no running statistics.",
            remedy="Train it with track_running_stats=True.",
        )
    centre, spread = (_tensor(traced, each).double() for each in (mean, variance))
    gamma = torch.ones_like(centre) if weight is None else _tensor(traced, weight).double()
    beta = torch.zeros_like(centre) if bias is None else _tensor(traced, bias).double()
    gain = gamma / torch.sqrt(spread + cast("float", eps))
    return _Affine(gain, beta - gain * centre)


def _tensor(traced: GraphModule, node: object) -> torch.Tensor:
    """Return the parameter or buffer that a `get_attr` node reads."""
    assert isinstance(node, torch.fx.Node)
    return cast("torch.Tensor", operator.attrgetter(str(node.target))(traced)).detach()


def _fold_into(traced: GraphModule, node: Node, affine: _Affine) -> None:
    """Make a convolution or a linear operator compute the BatchNorm behind it, in place."""
    _own_parameters(traced, node)
    op = FusedOp("convolution", node, node, None)
    weight, bias = weight_and_bias(traced, op)
    gain = affine.gain.view(-1, *[1] * (weight.dim() - 1))
    bias.copy_(affine.offset + affine.gain * bias.double())
    weight.copy_(gain * weight.double())


def _linear_reader(node: Node) -> Node | None:
    """Return the linear operator that alone reads a BatchNorm; None for any other."""
    readers = list(node.users)
    return readers[0] if [r.target for r in readers] == [aten.linear.default] else None


def _fold_ahead(traced: GraphModule, node: Node, affine: _Affine) -> None:
    """Make a linear operator compute the BatchNorm in front of it, in place."""
    _own_parameters(traced, node)
    weight, bias = weight_and_bias(traced, FusedOp("linear", node, node, None))
    exact = weight.double()
    bias.copy_(bias.double() + exact @ affine.offset)
    weight.copy_(exact * affine.gain)


def _own_parameters(traced: GraphModule, node: Node) -> None:
    """Give an operator a copy of parameters that others read too."""
    for index in (1, 2):
        source = node.args[index] if len(node.args) > index else None
        if not isinstance(source, torch.fx.Node):
            continue
        readers = [
            user
            for each in traced.graph.find_nodes(op="get_attr", target=source.target)
            for user in each.users
        ]
        if len(readers) > 1:
            name = f"{node.name}_own_{index}"
            tensor = parameter(traced, source).data.clone()
            traced.register_parameter(name, torch.nn.Parameter(tensor, requires_grad=False))
            with traced.graph.inserting_before(node):
                node.update_arg(index, traced.graph.get_attr(name))


def _become_depthwise(traced: GraphModule, node: Node, affine: _Affine) -> None:
    """Replace a BatchNorm by a depthwise 1x1 convolution, or by a diagonal linear layer, in place.

    Raises:
        UsageError: its input is neither an image nor a vector.
    """
    shape = cast("Node", node.args[0]).meta["val"].shape
    if len(shape) not in (2, 4):
        raise UsageError(
            f"The BatchNorm {describe_node(node)} cannot be folded: its input has the shape"
            f" {tuple(shape)}; expected (N, C, H, W) or (N, C).",
            remedy="Put it directly behind a convolution or a linear layer.",
        )
    is_image = len(shape) == 4
    gain = affine.gain.float()
    weight = gain.view(-1, 1, 1, 1) if is_image else torch.diag(gain)
    for suffix, tensor in (("gain", weight), ("offset", affine.offset.float())):
        name = f"{node.name}_{suffix}"
        traced.register_parameter(name, torch.nn.Parameter(tensor, requires_grad=False))
    with traced.graph.inserting_before(node):
        attributes = [traced.graph.get_attr(f"{node.name}_{each}") for each in ("gain", "offset")]
    layout = ([1, 1], [0, 0], [1, 1], shape[1]) if is_image else ()
    node.target = aten.conv2d.default if is_image else aten.linear.default
    node.args = (node.args[0], *attributes, *layout)
    node.kwargs = {}
