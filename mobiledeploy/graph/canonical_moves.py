"""Operators that copy values, in the few forms that the next stages know.

Input: a flat ATen graph. Output: the same graph with

    chunk, split, select, x[:, a:b]        -> slice(x, axis, a, b), with both ends written out
    x[:, :, ::2]                           -> a depthwise 1x1 convolution of weight 1 and stride 2
    transpose, movedim                     -> permute
    pixel shuffle, channel shuffle         -> reshape, permute, reshape
    nearest upsampling, expand             -> upsample_nearest2d(x, whole factors)
    bilinear upsampling by whole factors   -> see `_bilinear`

Invariant: an upsampling by other factors stays as it is, and is refused by its name.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import torch

from mobiledeploy.graph.rewriting import call_before, calls, constant_before, replace, shape_of

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

aten = torch.ops.aten

NEAREST = aten.upsample_nearest2d.vec
_SPLITS = (
    aten.chunk.default,
    aten.split.Tensor,
    aten.split.sizes,
    aten.split_with_sizes.default,
    aten.unsafe_split.Tensor,
    aten.unsafe_chunk.default,
)
# with whole factors, "nearest-exact" takes the same pixels
_NEAREST_EXACT = getattr(aten, "_upsample_nearest_exact2d").vec  # noqa: B009 - a private name
_NEAREST = (NEAREST, aten.upsample_nearest2d.default, _NEAREST_EXACT)
_BILINEAR = (aten.upsample_bilinear2d.vec, aten.upsample_bilinear2d.default)


def canonical_moves(traced: GraphModule) -> None:
    """Rewrite every operator that copies values, in place."""
    for rewrite in (_splits, _selects, _slices, _permutations, _shuffles, _nearest, _bilinears):
        rewrite(traced)
        traced.graph.eliminate_dead_code()


def write_views_for_any_batch(traced: GraphModule, views: tuple[object, ...]) -> None:
    """Write views of (1, ...) as (1, ...) as reshapes that keep the first axis, in place."""
    for node in calls(traced, views):
        before, after = shape_of(cast("Node", node.args[0])), shape_of(node)
        if before[0] == after[0] == 1 and node.target is not aten.flatten.using_ints:
            node.target, node.kwargs = aten.reshape.default, {}
            node.args = (node.args[0], [-1, *after[1:]])


def _splits(traced: GraphModule) -> None:
    """Write every part of a split that is read as a slice."""
    for node in calls(traced, _SPLITS):
        source = cast("Node", node.args[0])
        axis = _axis(node, 2)
        ends = [0]
        for part in node.meta["val"]:
            ends.append(ends[-1] + part.shape[axis])
        bounds = list(pairwise(ends))
        for user in list(node.users):
            start, end = bounds[cast("int", user.args[1])]
            user.target, user.args = aten.slice.Tensor, (source, axis, start, end)


def _selects(traced: GraphModule) -> None:
    """Write x[:, i] as a slice of one that is reshaped."""
    for node in calls(traced, (aten.select.int,)):
        source = cast("Node", node.args[0])
        axis, index = (cast("int", each) for each in node.args[1:3])
        axis, index = axis % len(shape_of(source)), index % shape_of(source)[axis]
        if axis == 0:
            continue
        part = call_before(traced, node, aten.slice.Tensor, source, axis, index, index + 1)
        node.target, node.args = aten.reshape.default, (part, list(shape_of(node)))
        part.meta["val"] = node.meta["val"].unsqueeze(axis)


def _slices(traced: GraphModule) -> None:
    """Write both ends of slices; remove those of everything; give strides to convolutions."""
    for node in calls(traced, (aten.slice.Tensor,)):
        source = cast("Node", node.args[0])
        defaults: tuple[Any, ...] = (0, None, None, 1)
        arguments: list[Any] = [*node.args[1:], *defaults[len(node.args) - 1 :]]
        shape = shape_of(source)
        axis = arguments[0] % len(shape)
        start, end, stride = slice(*arguments[1:]).indices(shape[axis])
        whole = (start, end) == (0, shape[axis])
        if axis == 0 and not (whole and stride == 1):
            continue  # of the batch: it is refused
        if stride == 1 and whole:
            replace(traced, node, source)
        elif stride == 1:
            node.args = (source, axis, start, end)
        elif len(shape) == 4 and axis > 1:
            part = (
                source
                if whole
                else call_before(traced, node, aten.slice.Tensor, source, axis, start, end)
            )
            weight = constant_before(traced, node, "weight", torch.ones(shape[1], 1, 1, 1))
            strides = [stride, 1] if axis == 2 else [1, stride]
            node.target = aten.conv2d.default
            node.args = (part, weight, None, strides, [0, 0], [1, 1], shape[1])


def _permutations(traced: GraphModule) -> None:
    """Write transpositions as permutations."""
    for node in calls(traced, (aten.transpose.int, aten.permute.default, aten.movedim.int)):
        rank = len(shape_of(node))
        order = list(range(rank))
        if node.target is aten.permute.default:
            order = [axis % rank for axis in cast("list[int]", node.args[1])]
        else:
            one, other = (cast("int", axis) % rank for axis in node.args[1:3])
            if node.target is aten.transpose.int:
                order[one], order[other] = other, one
            else:
                order.insert(other, order.pop(one))
        node.target, node.args = aten.permute.default, (node.args[0], order)


def _shuffles(traced: GraphModule) -> None:
    """Write pixel and channel shuffles as reshapes around a permutation."""
    shuffles = (
        aten.pixel_shuffle.default,
        aten.pixel_unshuffle.default,
        aten.channel_shuffle.default,
    )
    for node in calls(traced, shuffles):
        source, count = cast("tuple[Node, int]", node.args)
        _, channels, height, width = shape_of(source)
        inner: tuple[int, ...]
        order: tuple[int, ...]
        if node.target is aten.pixel_shuffle.default:
            depth = channels // count**2
            inner, order = (depth, count, count, height, width), (0, 1, 4, 2, 5, 3)
        elif node.target is aten.pixel_unshuffle.default:
            sides = (height // count, count, width // count, count)
            inner, order = (channels, *sides), (0, 1, 3, 5, 2, 4)
        else:
            inner, order = (count, channels // count, height, width), (0, 2, 1, 3, 4)
        _shuffle(traced, node, source, inner, order)


def _shuffle(
    traced: GraphModule,
    node: Node,
    source: Node,
    inner: tuple[int, ...],
    order: tuple[int, ...],
) -> None:
    """Make a node the last of reshape to (N, *inner), permute, reshape."""
    split = call_before(traced, node, aten.reshape.default, source, [-1, *inner])
    moved = call_before(traced, node, aten.permute.default, split, list(order))
    node.target, node.kwargs = aten.reshape.default, {}
    node.args = (moved, [-1, *shape_of(node)[1:]])


def _nearest(traced: GraphModule) -> None:
    """Write nearest upsampling, and what expands a pixel to an image, with whole factors."""
    joined = (aten.mul.Tensor, aten.add.Tensor)  # they broadcast by themselves
    for node in calls(traced, (*_NEAREST, aten.expand.default, aten.expand_as.default, *_BILINEAR)):
        factors = _factors(node)
        if factors is None:
            continue
        source = cast("Node", node.args[0])
        if factors == (1, 1):
            replace(traced, node, source)
        elif node.target in _NEAREST or (
            shape_of(source)[2:] == (1, 1)
            and (node.target in _BILINEAR or any(user.target not in joined for user in node.users))
        ):
            node.target, node.kwargs = NEAREST, {}
            node.args = (source, None, [float(factor) for factor in factors])


def _factors(node: Node) -> tuple[int, int] | None:
    """Return by which whole factors an operator enlarges height and width; None if by others."""
    before, after = shape_of(cast("Node", node.args[0])), shape_of(node)
    if len(before) != 4 or before[:2] != after[:2]:
        return None
    if any(large % small for small, large in zip(before[2:], after[2:], strict=True)):
        return None
    return after[2] // before[2], after[3] // before[3]


def _bilinears(traced: GraphModule) -> None:
    """Write bilinear upsampling by whole factors as a convolution and a pixel shuffle.

    Of f new pixels between two old ones, each is a mean of at most two, with weights that depend on
    its place only. So a depthwise convolution computes all of them, as f x f channels, from the
    image with its border repeated.
    """
    for node in calls(traced, _BILINEAR):
        factors, aligns_corners = _factors(node), node.args[2]
        if factors is None or aligns_corners:
            continue
        source = cast("Node", node.args[0])
        _, channels, height, width = shape_of(source)
        padded = source
        for axis, size, factor in ((2, height, factors[0]), (3, width, factors[1])):
            if factor > 1:
                padded = _repeat_border(traced, node, padded, axis, size)
        rows, columns = (_interpolation(factor) for factor in factors)
        kernel = torch.einsum("ah,bw->abhw", rows, columns).flatten(0, 1)
        weight = kernel.repeat(channels, 1, 1).unsqueeze(1)
        attribute = constant_before(traced, node, "weight", weight)
        ones, none = [1, 1], [0, 0]
        arguments = (padded, attribute, None, ones, none, ones, channels)
        pixels = call_before(traced, node, aten.conv2d.default, *arguments)
        inner = (channels, *factors, height, width)
        _shuffle(traced, node, pixels, inner, (0, 1, 4, 2, 5, 3))


def _repeat_border(traced: GraphModule, node: Node, source: Node, axis: int, size: int) -> Node:
    """Repeat the first and the last row or column of an image."""
    ends = [
        call_before(traced, node, aten.slice.Tensor, source, axis, at, at + 1)
        if size > 1
        else source
        for at in (0, size - 1)
    ]
    return call_before(traced, node, aten.cat.default, [ends[0], source, ends[1]], axis)


def _interpolation(factor: int) -> torch.Tensor:
    """Return the weights of the pixel before, at and behind, for each new pixel, (factor, taps)."""
    if factor == 1:
        return torch.ones(1, 1)
    offsets = (torch.arange(factor) + 0.5) / factor - 0.5  # from the old pixel's centre
    return torch.stack([(-offsets).clamp(min=0), 1 - offsets.abs(), offsets.clamp(min=0)], 1)


def _axis(node: Node, position: int) -> int:
    """Return an operator's axis, counted from the front; 0 if it is not given."""
    given = node.args[position] if len(node.args) > position else node.kwargs.get("dim", 0)
    return cast("int", given) % len(shape_of(cast("Node", node.args[0])))
