"""Space-to-depth stem: the first convolution reads pairs of pixels as one pixel of 2 C channels.

In: the XNNPACK graph that ExecuTorch lowers an int8 network to, and its constants. Out: the same
graph, whose first convolution reads (H, W / 2, 2 C) with stride 1 along the width instead of
(H, W, C) with stride 2. Along one row, with padding p,

    y[g, o] = sum over k, c of w[o, k, c] * x[2 g + k - p, c]

    with 2 j + i = k - p, which is pixel i of the pair g + j,

            = sum over j, i, c of v[o, j, (c, i)] * x[g + j, (c, i)]

where v is w at k = 2 j + i + p, and 0 if there is no such k. The integer sums get additional zeros
and nothing else, so the output is identical.

Why (decision record 0004 has the figures): XNNPACK's int8 kernels process eight input channels at a
time on x86-64 and on ARM with i8mm, so a tap of 3 channels costs as much as one of 6, and six taps
replace nine. Converting the image from planes to channels-last also becomes cheaper: it moves
elements of two bytes in tiles with half as many columns. Pixels with channels last need none: two
of them are neighbours in memory, in the order (i, c), so a reshape makes the pairs.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise, takewhile
from typing import TYPE_CHECKING

import numpy as np
from executorch.backends.xnnpack import xnnpack_preprocess
from executorch.backends.xnnpack.serialization.xnnpack_graph_schema import (
    XNNConv2d,
    XNNConvert,
    XNNStaticConstantPad,
    XNNStaticTranspose,
    XNode,
)

from mobiledeploy.export.xnnpack_passes.common import (
    TO_PIXELS,
    absorb_padding,
    constant_of,
    dims_of,
    in_pixels,
    is_quantized,
    new_reshape,
    new_value,
    operands_of,
    readers_of,
    set_constant,
    set_dims,
    value_of,
)
from mobiledeploy.export.xnnpack_passes.pixel_input import read_pixels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from executorch.backends.xnnpack.serialization.xnnpack_graph_schema import XNNGraph
    from executorch.exir._serialize._named_data_store import NamedDataStore
    from numpy.typing import NDArray


@contextmanager
def space_to_depth_stems() -> Iterator[None]:
    """Make ExecuTorch serialize XNNPACK graphs with a space-to-depth stem inside the context.

    ExecuTorch's own passes cannot do this: it decides layouts after the last of them.
    """
    serialize = xnnpack_preprocess.serialize_xnnpack_binary
    new_store = xnnpack_preprocess.NamedDataStore
    stores: list[NamedDataStore] = []

    def recorded_store() -> NamedDataStore:
        stores.append(new_store())
        return stores[-1]

    def serialize_converted(graph: XNNGraph, constants: bytearray) -> bytes:
        convert_stem(graph, stores[-1])
        return bytes(serialize(graph, constants))

    xnnpack_preprocess.serialize_xnnpack_binary = serialize_converted
    xnnpack_preprocess.NamedDataStore = recorded_store
    try:
        yield
    finally:
        xnnpack_preprocess.serialize_xnnpack_binary = serialize
        xnnpack_preprocess.NamedDataStore = new_store


def convert_stem(graph: XNNGraph, store: NamedDataStore) -> None:
    """Convert the input of pixels and the stem of a graph, in place.

    The stem stays as it is if it is not int8 (a float graph), if its stride is not 2, or if the
    image's width is odd.

    Args:
        graph: The graph that ExecuTorch is about to serialize.
        store: The graph's constants; receives the new weight.
    """
    if read_pixels(graph):
        pads = [each for each in graph.xnodes[1:2] if _is_pad(each)]
        kinds = [XNNConvert, *[XNNStaticConstantPad] * len(pads), XNNConv2d]
        if _begins_with(graph, kinds) and _halves(graph, graph.xnodes[len(kinds) - 1]):
            convolution = graph.xnodes[len(kinds) - 1]
            _convert_convolution(graph, store, convolution, pixel_order=True)
            _pair_pixels(graph, convolution)
        return
    pads = list(takewhile(_is_pad, graph.xnodes[1:]))
    kinds = [XNNConvert, *[XNNStaticConstantPad] * len(pads), XNNStaticTranspose, XNNConv2d]
    if not _begins_with(graph, kinds):
        return
    transpose, convolution = graph.xnodes[len(kinds) - 2 : len(kinds)]
    if not is_quantized(graph, convolution.xnode_union.input1_id):
        return
    if pads:
        _absorb_pad(graph, pads[-1], transpose, convolution)
    if _halves(graph, convolution):
        _convert_convolution(graph, store, convolution)
        _convert_layout(graph, transpose)


def _is_pad(node: XNode) -> bool:
    return isinstance(node.xnode_union, XNNStaticConstantPad)


def _halves(graph: XNNGraph, convolution: XNode) -> bool:
    """Return whether a convolution halves the width, so that pairs of pixels can be its input."""
    stem = convolution.xnode_union
    width = dims_of(graph, stem.input1_id)[2]
    halves = stem.subsampling_width == 2 and width == 2 * dims_of(graph, stem.output_id)[2]
    return bool(halves and stem.groups == 1 and stem.dilation_width == 1)


def _begins_with(graph: XNNGraph, kinds: list[type]) -> bool:
    """Return whether the first nodes are of these kinds, each read by the next node alone."""
    unions = [node.xnode_union for node in graph.xnodes[: len(kinds)]]
    return [type(union) for union in unions] == kinds and all(
        operands_of(reader).count(union.output_id) == readers_of(graph, union.output_id) == 1
        for union, reader in pairwise(unions)
    )


def _absorb_pad(graph: XNNGraph, node: XNode, transpose: XNode, convolution: XNode) -> None:
    """Move a zero padding in front of the stem (TensorFlow's "same") into the convolution."""
    pad = node.xnode_union
    if absorb_padding(convolution, in_pixels(pad)):
        transpose.xnode_union = replace(transpose.xnode_union, input_id=pad.input_id)
        dims = dims_of(graph, pad.input_id)
        set_dims(graph, transpose.xnode_union.output_id, [dims[axis] for axis in TO_PIXELS])
        graph.xnodes.remove(node)


def paired_weight(
    weight: NDArray[np.int8], padding: int, *, pixel_order: bool = False
) -> tuple[NDArray[np.int8], int]:
    """Return the weight v of the module's formula and the left padding that goes with it.

    Args:
        weight: w, (O, kH, kW, C), of a convolution with stride 2 along the width.
        padding: Left padding in pixels.
        pixel_order: Whether the 2 C channels of v are in the order (i, c) instead of (c, i).

    Returns:
        v, (O, kH, pairs, 2 C), and the left padding in pairs.
    """
    out, height, width, channels = weight.shape
    before = (padding + 1) // 2
    pairs = before + (width - 1 - padding) // 2 + 1
    paired = np.zeros((out, height, pairs, channels, 2), np.int8)
    for k in range(width):
        j, i = divmod(k - padding, 2)
        paired[:, :, before + j, :, i] = weight[:, :, k]
    if pixel_order:
        paired = paired.swapaxes(3, 4)
    return paired.reshape(out, height, pairs, 2 * channels), before


def _convert_convolution(
    graph: XNNGraph, store: NamedDataStore, node: XNode, *, pixel_order: bool = False
) -> None:
    """Replace the weight, the stride and the padding of the stem."""
    stem = node.xnode_union
    value = value_of(graph, stem.filter_id).tensor_value
    content = constant_of(graph, store, value.constant_buffer_idx)
    pixels = np.frombuffer(content, np.int8).reshape(value.dims)
    pairs, before = paired_weight(pixels, stem.padding_left, pixel_order=pixel_order)
    set_constant(graph, store, value.constant_buffer_idx, pairs.tobytes())
    set_dims(graph, stem.filter_id, list(pairs.shape))
    node.xnode_union = replace(
        stem,
        padding_left=before,
        padding_right=pairs.shape[2] - 1 - before,
        kernel_width=pairs.shape[2],
        subsampling_width=1,
        group_input_channels=pairs.shape[3],
    )


def _pair_pixels(graph: XNNGraph, convolution: XNode) -> None:
    """Reshape pixels (1, H, W, C) to (1, H, W / 2, 2 C) in front of a convolution."""
    stem = convolution.xnode_union
    batch, height, width, channels = dims_of(graph, stem.input1_id)
    pairs = new_value(graph, stem.input1_id, [batch, height, width // 2, 2 * channels])
    reshape = new_reshape(graph, stem.input1_id, pairs, convolution.debug_handle)
    graph.xnodes.insert(graph.xnodes.index(convolution), reshape)
    convolution.xnode_union = replace(stem, input1_id=pairs)


def _convert_layout(graph: XNNGraph, transpose: XNode) -> None:
    """Replace the transpose to (1, H, W, C) by one to (1, H, W / 2, 2 C), two bytes at a time."""
    codes, target = transpose.xnode_union.input_id, transpose.xnode_union.output_id
    _, channels, height, width = dims_of(graph, codes)
    pairs = height * width // 2
    planes = new_value(graph, codes, [channels, pairs, 2])
    pixels = new_value(graph, codes, [pairs, channels, 2])
    transpose.xnode_union = XNNStaticTranspose(3, [1, 0, 2], planes, pixels, flags=0)
    set_dims(graph, target, [1, height, width // 2, 2 * channels])
    place = graph.xnodes.index(transpose)
    graph.xnodes[place : place + 1] = [
        new_reshape(graph, codes, planes, graph.xnodes[place - 1].debug_handle),
        transpose,
        new_reshape(graph, pixels, target, transpose.debug_handle),
    ]
