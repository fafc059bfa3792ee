"""A network of any module as a flat ATen graph, in the operators that the next stages know.

Input: an `nn.Module`. Output: an `fx.GraphModule` that owns a copy of the weights and computes the
same, at any batch size. Implementations write one operator in many ways: a hard-swish as
x * relu6(x + 3) / 6, global average pooling as a mean, squeeze-and-excitation with linear layers.
Each pass rewrites one of them:

    average of windows                 -> a depthwise convolution
    mean over height and width         -> adaptive_avg_pool2d(x, 1)
    view (N, C, 1, 1) as (N, C)        -> flatten(x, 1)
    linear layers between such views   -> 1x1 convolutions
    activations                        -> see `canonical_activations`
    slices, shuffles, upsampling       -> see `canonical_moves`
    arithmetic with constants          -> see `canonical_constants`

Invariant: an operator that no pass knows stays as it is, with its module and its line of code.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, cast

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

from mobiledeploy.errors import UsageError
from mobiledeploy.graph.aten_graph import OUT_OF_PLACE
from mobiledeploy.graph.canonical_activations import canonical_activations
from mobiledeploy.graph.canonical_constants import (
    evaluate_constants,
    write_constants_as_batch_norm,
)
from mobiledeploy.graph.canonical_moves import canonical_moves, write_views_for_any_batch
from mobiledeploy.graph.nodes import describe_node, outputs_of, parameter
from mobiledeploy.graph.rewriting import calls, replace
from mobiledeploy.utils.outputs import joined
from mobiledeploy.utils.quiet import quietly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import nn
    from torch.fx import GraphModule, Node

aten = torch.ops.aten

_IDENTITIES = (
    aten.dropout.default,
    aten.dropout_.default,
    aten.feature_dropout.default,
    aten.alpha_dropout.default,
    aten.contiguous.default,
    aten.clone.default,
    aten.detach.default,
    aten.detach_.default,
    aten.alias.default,
    aten.lift_fresh_copy.default,
)
_CASTS = (aten.to.dtype, aten.to.device, aten.type_as.default)
_VIEWS = (
    aten.reshape.default,
    aten.flatten.using_ints,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
    aten.unflatten.int,
)
_POINTWISE = (
    aten.relu.default,
    aten.relu6.default,
    aten.hardtanh.default,
    aten.hardsigmoid.default,
    aten.hardswish.default,
    aten.sigmoid.default,
)


def canonical_graph(module: nn.Module, input_shape: tuple[int, ...]) -> GraphModule:
    """Return the canonical graph of a module, in eval mode.

    Args:
        module: The module; it stays as it is.
        input_shape: Shape of its input, (1, C, H, W).

    Raises:
        UsageError: the module cannot be traced, or fixes its batch size.
    """
    example = torch.zeros(input_shape)
    with quietly():
        copied = copy.deepcopy(module).eval()
        try:
            program = torch.export.export(copied, (example,))
        except Exception as error:  # tracing runs the module's own code, which may raise anything
            raise _untraceable(module, error) from error
        unlifted = program.module(check_guards=False)
    traced = torch.fx.GraphModule(unlifted, unlifted.graph)
    _return_tensors(traced)
    _apply(traced, _FIRST)
    record_shapes(traced, example)  # the next ones read those of new nodes
    _apply(traced, _THEN)
    traced.graph.lint()
    traced.recompile()
    record_shapes(traced, example)
    _require_any_batch(traced, module, input_shape)
    return traced


def _return_tensors(traced: GraphModule) -> None:
    """Make the graph return its tensor, or a tuple of them, instead of a dict."""
    traced.graph.set_codegen(torch.fx.graph.CodeGen())
    (output,) = traced.graph.find_nodes(op="output")
    leaves = outputs_of(traced.graph)
    output.args = (leaves if len(leaves) > 1 else leaves[0],)


def _apply(traced: GraphModule, rewrites: Iterable[Callable[[GraphModule], None]]) -> None:
    for rewrite in rewrites:
        rewrite(traced)
        traced.graph.eliminate_dead_code()


def record_shapes(traced: GraphModule, example: torch.Tensor) -> None:
    """Write the shape of every value into its node's metadata."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    FakeTensorProp(traced, mode).propagate(example)  # PT2E accepts no other kind of shape


def _untraceable(module: nn.Module, error: Exception) -> UsageError:
    """Return the error for a module that torch.export refuses."""
    reason = str(error).strip().split("\n")[0] or type(error).__name__
    return UsageError(
        f"{type(module).__name__} cannot be traced by torch.export: {reason}",
        remedy="Use a module without control flow that depends on the values of its input.",
    )


def _require_any_batch(
    traced: GraphModule, module: nn.Module, input_shape: tuple[int, ...]
) -> None:
    """Raise UsageError unless the graph computes for two images what the module does for each.

    torch.export writes the batch size of its example into views. Those that move values from one
    image to another still have it.
    """
    if any(node.args[3] is None for node in calls(traced, (aten.batch_norm.default,))):
        return  # without statistics of its own; `fold_graph` refuses it by its name
    generator = torch.Generator().manual_seed(0)
    images = torch.randn((2, *input_shape[1:]), generator=generator)
    try:
        with torch.no_grad():
            expected = torch.cat([joined(module(image)) for image in torch.split(images, 1)])
            found = joined(traced(images))
        same = expected.shape == found.shape and torch.allclose(
            found, expected, rtol=0, atol=1e-3 * float(expected.abs().max())
        )
    except RuntimeError:
        same = False
    if not same:
        views = [node for node in traced.graph.nodes if _fixes_batch(node)]
        where = "".join(f" {describe_node(node)}" for node in views[:1])
        raise UsageError(
            "The network fixes its batch size, or depends on other images of the batch."
            + (f" The first view with a fixed size is{where}." if where else ""),
            remedy="Flatten with torch.flatten(x, 1).",
        )


def _fixes_batch(node: Node) -> bool:
    return node.target is aten.reshape.default and cast("list[int]", node.args[1])[0] == 1


def _out_of_place(traced: GraphModule) -> None:
    """Replace operators that overwrite their operand, and views, which need a certain layout."""
    for node in traced.graph.nodes:
        node.target = OUT_OF_PLACE.get(node.target, node.target)
        if node.target is aten.view.default:  # copies that made it possible are removed
            node.target = aten.reshape.default


def _remove_identities(traced: GraphModule) -> None:
    """Remove operators that do nothing in inference, and casts to the dtype that is there."""
    for node in calls(traced, (*_IDENTITIES, *_CASTS)):
        source = node.args[0]
        assert isinstance(source, torch.fx.Node)
        if node.target in _IDENTITIES or node.meta["val"].dtype == source.meta["val"].dtype:
            replace(traced, node, source)


def _number_padding(traced: GraphModule) -> None:
    """Write the paddings "same" and "valid" of convolutions as numbers."""
    for node in calls(traced, (aten.conv2d.padding,)):
        defaults = (None, [1, 1], "valid", [1, 1], 1)
        arguments: list[Any] = [*node.args, *defaults[len(node.args) - 2 :]]
        kernel, padding, dilation = arguments[1].meta["val"].shape[2:], *arguments[4:6]
        reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        if padding == "same" and any(total % 2 for total in reach):
            continue  # asymmetric: it stays as it is and is refused by name
        arguments[4] = [total // 2 if padding == "same" else 0 for total in reach]
        node.target, node.args = aten.conv2d.default, tuple(arguments)


def _pools(traced: GraphModule) -> None:
    """Write means and average pools over the whole image as adaptive_avg_pool2d to 1x1."""
    for node in calls(traced, (aten.mean.dim, aten.avg_pool2d.default)):
        source = cast("Node", node.args[0])
        axes = _mean_axes(node)
        if axes == {2} and _mean_axes(source) == {3}:  # x.mean(3).mean(2)
            source, axes = cast("Node", source.args[0]), {2, 3}
        shape = source.meta["val"].shape
        if len(shape) != 4:
            continue
        if node.target is aten.mean.dim:
            keeps = len(node.args) > 2 and bool(node.args[2])
            if axes != {2, 3} or len(node.args) > 3 or node.kwargs.get("dtype") is not None:
                continue
        else:
            keeps, kernel = True, list(cast("list[int]", node.args[1]))
            if (kernel * 2)[:2] != list(shape[2:]) or any(map(_is_padded, node.args[3:4])):
                continue
        with traced.graph.inserting_before(node):
            pooled = traced.graph.call_function(aten.adaptive_avg_pool2d.default, (source, [1, 1]))
            pooled.meta = {**node.meta, "val": source.meta["val"].new_empty((*shape[:2], 1, 1))}
            result = pooled
            if not keeps:
                result = traced.graph.call_function(aten.flatten.using_ints, (pooled, 1))
                result.meta = dict(node.meta)
        replace(traced, node, result)


def _average_windows(traced: GraphModule) -> None:
    """Write averages of windows as depthwise convolutions with equal weights.

    Windows that count fewer pixels at the border than inside stay as they are, and are refused.
    """
    for node in calls(traced, (aten.avg_pool2d.default, aten.adaptive_avg_pool2d.default)):
        source = cast("Node", node.args[0])
        _, channels, *sides = source.meta["val"].shape
        if node.target is aten.avg_pool2d.default:
            defaults: tuple[Any, ...] = (None, [], 0, False, True, None)
            arguments: list[Any] = [*node.args, *defaults[len(node.args) - 1 :]]
            _, kernel, stride, padding, ceil_mode, counts_padding, divisor = arguments
            kernel, padding = _pair(kernel), _pair(padding)
            stride = _pair(stride) if stride else kernel
            if ceil_mode or divisor is not None or (any(padding) and not counts_padding):
                continue
        else:
            parts = _pair(node.args[1])
            if parts == [1, 1] or any(side % part for side, part in zip(sides, parts, strict=True)):
                continue
            kernel = stride = [side // part for side, part in zip(sides, parts, strict=True)]
            padding = [0, 0]
        name = f"{node.name}_weight"
        weight = torch.full((channels, 1, *kernel), 1 / (kernel[0] * kernel[1]))
        traced.register_parameter(name, torch.nn.Parameter(weight, requires_grad=False))
        with traced.graph.inserting_before(node):
            attribute = traced.graph.get_attr(name)
        node.target = aten.conv2d.default
        node.args = (source, attribute, None, stride, padding, [1, 1], channels)


def _max_windows(traced: GraphModule) -> None:
    """Write all arguments of max pools: ExecuTorch's partitioner reads the stride."""
    for node in calls(traced, (aten.max_pool2d.default,)):
        defaults: tuple[Any, ...] = (None, [], 0, 1, False)
        arguments: list[Any] = [*node.args, *defaults[len(node.args) - 1 :]]
        source, kernel, stride, padding, dilation, ceil_mode = arguments
        windows = (_pair(each) for each in (kernel, stride or kernel, padding, dilation))
        node.args = (source, *windows, ceil_mode)


def _pair(value: object) -> list[int]:
    """Return [height, width] of a number or of a list of one or two."""
    values = list(value) if isinstance(value, list | tuple) else [value]
    return [cast("int", each) for each in (values * 2)[:2]]


def _mean_axes(node: Node) -> set[int]:
    """Return the axes, counted from the front, of a mean that drops or keeps them; else none."""
    if node.target is not aten.mean.dim:
        return set()
    rank = cast("Node", node.args[0]).meta["val"].dim()
    return {axis % rank for axis in cast("list[int]", node.args[1])}


def _flattenings(traced: GraphModule) -> None:
    """Write views of (1, ...) as (1, K) as flatten(x, 1); remove views that change nothing."""
    for node in calls(traced, _VIEWS):
        source = cast("Node", node.args[0])
        before, after = source.meta["val"].shape, node.meta["val"].shape
        if before == after and before[0] == 1:
            replace(traced, node, source)
        elif len(after) == 2 and len(before) > 2 and before[0] == after[0] == 1:
            while source.target in _VIEWS:  # all of them keep the order of the values
                source = cast("Node", source.args[0])
            node.target, node.args, node.kwargs = aten.flatten.using_ints, (source, 1), {}


def _views(traced: GraphModule) -> None:
    """Write all other views as reshapes for any batch size."""
    write_views_for_any_batch(traced, _VIEWS)


def _gates(traced: GraphModule) -> None:
    """Write linear layers as 1x1 convolutions between (N, C, 1, 1) and (N, K, 1, 1)."""
    for node in calls(traced, (aten.reshape.default, aten.unsqueeze.default)):
        after, source = node.meta["val"].shape, cast("Node", node.args[0])
        while source.target is aten.unsqueeze.default:  # x[:, :, None, None]
            source = cast("Node", source.args[0])
        if len(after) != 4 or tuple(after[2:]) != (1, 1) or source.meta["val"].dim() != 2:
            continue
        chain = _pointwise_chain(source)
        if chain is None:
            continue
        for each in chain[1:]:
            if each.target is aten.linear.default:
                _as_convolution(traced, each)
        chain[0].replace_all_uses_with(cast("Node", chain[0].args[0]))
        replace(traced, node, chain[-1])


def _pointwise_chain(end: Node) -> list[Node] | None:
    """Return the nodes from a flatten of (N, C, 1, 1) to `end`; None if others are between."""
    chain = [end]
    while chain[0].target in (*_POINTWISE, aten.linear.default):
        chain.insert(0, cast("Node", chain[0].args[0]))
    start = chain[0]
    if start.target is not aten.flatten.using_ints or len(start.users) != 1:
        return None
    if tuple(cast("Node", start.args[0]).meta["val"].shape[2:]) != (1, 1):
        return None
    if any(len(node.users) != 1 for node in chain):
        return None
    return chain


def _as_convolution(traced: GraphModule, node: Node) -> None:
    """Turn a linear operator into a 1x1 convolution, in place."""
    weight = parameter(traced, node.args[1])
    name = f"{node.name}_kernel"
    traced.register_parameter(name, torch.nn.Parameter(weight.data[:, :, None, None].clone()))
    with traced.graph.inserting_before(node):
        kernel = traced.graph.get_attr(name)
    bias = node.args[2] if len(node.args) > 2 else None
    node.target = aten.conv2d.default
    node.args = (node.args[0], kernel, bias)


def _expansions(traced: GraphModule) -> None:
    """Remove expansions in front of multiplications and additions, which broadcast."""
    for node in calls(traced, (aten.expand.default, aten.expand_as.default)):
        if all(user.target in (aten.mul.Tensor, aten.add.Tensor) for user in node.users):
            replace(traced, node, cast("Node", node.args[0]))


def _is_padded(padding: object) -> bool:
    return any(cast("list[int]", padding)) if isinstance(padding, list | tuple) else bool(padding)


_FIRST = (
    _out_of_place,
    _remove_identities,
    _number_padding,
    evaluate_constants,
    canonical_moves,
)
_THEN = (
    canonical_activations,
    _pools,
    _average_windows,
    _max_windows,
    _flattenings,
    _gates,
    _expansions,
    write_constants_as_batch_norm,
    _views,
)
