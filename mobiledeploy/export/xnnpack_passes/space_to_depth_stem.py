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
elements of two bytes in tiles with half as many columns.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from executorch.backends.xnnpack import xnnpack_preprocess
from executorch.backends.xnnpack.serialization.xnnpack_graph_schema import (
    XNNConv2d,
    XNNConvert,
    XNNQuantizedTensorValue,
    XNNStaticConstantPad,
    XNNStaticReshape,
    XNNStaticTranspose,
    XNode,
    XValue,
)
from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import (
    CONSTANT_TENSOR_ALIGNMENT,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from executorch.backends.xnnpack.serialization.xnnpack_graph_schema import XNNGraph
    from executorch.exir._serialize._named_data_store import NamedDataStore
    from numpy.typing import NDArray

_STEM_NODES = [XNNConvert, XNNStaticTranspose, XNNConv2d]
_PADDED_STEM_NODES = [XNNConvert, XNNStaticConstantPad, XNNStaticTranspose, XNNConv2d]


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
    """Convert the stem of a graph in place.

    The graph stays as it is if it does not begin with an int8 stem (a float graph), if the stem's
    stride is not 2, or if the image's width is odd.

    Args:
        graph: The graph that ExecuTorch is about to serialize.
        store: The graph's constants; receives the new weight.
    """
    if _begins_with(graph, _PADDED_STEM_NODES):
        _absorb_pad(graph)
    if not _begins_with(graph, _STEM_NODES):
        return
    convert, transpose, convolution = graph.xnodes[:3]
    stem = convolution.xnode_union
    width = _dims(graph, stem.input1_id)[2]
    halves = stem.subsampling_width == 2 and width == 2 * _dims(graph, stem.output_id)[2]
    if not halves or stem.groups != 1 or stem.dilation_width != 1:
        return
    _convert_convolution(graph, store, convolution)
    _convert_layout(graph, convert, transpose)


def _begins_with(graph: XNNGraph, kinds: list[type]) -> bool:
    """Return whether the first nodes are of these kinds, each read by the next node alone."""
    unions = [node.xnode_union for node in graph.xnodes[: len(kinds)]]
    return [type(union) for union in unions] == kinds and all(
        _operands(reader).count(union.output_id) == _readers(graph, union.output_id) == 1
        for union, reader in pairwise(unions)
    )


def _absorb_pad(graph: XNNGraph) -> None:
    """Move a zero padding in front of the stem (TensorFlow's "same") into the convolution."""
    pad, transpose, stem = (node.xnode_union for node in graph.xnodes[1:4])
    if pad.padding_value != 0:
        return
    (*_, top, left), (*_, bottom, right) = pad.pre_paddings, pad.post_paddings
    graph.xnodes[3].xnode_union = replace(
        stem,
        padding_top=stem.padding_top + top,
        padding_left=stem.padding_left + left,
        padding_bottom=stem.padding_bottom + bottom,
        padding_right=stem.padding_right + right,
    )
    graph.xnodes[2].xnode_union = replace(transpose, input_id=pad.input_id)
    batch, channels, height, width = _dims(graph, pad.input_id)
    _set_dims(graph, transpose.output_id, [batch, height, width, channels])
    del graph.xnodes[1]


def paired_weight(weight: NDArray[np.int8], padding: int) -> tuple[NDArray[np.int8], int]:
    """Return the weight v of the module's formula and the left padding that goes with it.

    Args:
        weight: w, (O, kH, kW, C), of a convolution with stride 2 along the width.
        padding: Left padding in pixels.

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
    return paired.reshape(out, height, pairs, 2 * channels), before


def _convert_convolution(graph: XNNGraph, store: NamedDataStore, node: XNode) -> None:
    """Replace the weight, the stride and the padding of the stem."""
    stem = node.xnode_union
    value = _value(graph, stem.filter_id).tensor_value
    content = _constant(graph, store, value.constant_buffer_idx)
    pixels = np.frombuffer(content, np.int8).reshape(value.dims)
    pairs, before = paired_weight(pixels, stem.padding_left)
    _set_constant(graph, store, value.constant_buffer_idx, pairs.tobytes())
    _set_dims(graph, stem.filter_id, list(pairs.shape))
    node.xnode_union = replace(
        stem,
        padding_left=before,
        padding_right=pairs.shape[2] - 1 - before,
        kernel_width=pairs.shape[2],
        subsampling_width=1,
        group_input_channels=pairs.shape[3],
    )


def _constant(graph: XNNGraph, store: NamedDataStore, index: int) -> bytes:
    entry = store.pte_data[graph.constant_data[index].named_key]
    return bytes(store.buffers[entry.buffer_index])


def _set_constant(graph: XNNGraph, store: NamedDataStore, index: int, content: bytes) -> None:
    """Replace a constant; drop the old one from the store if nothing else reads it."""
    former = graph.constant_data[index].named_key
    key = hashlib.sha256(content).hexdigest()
    store.add_named_data(key, content, CONSTANT_TENSOR_ALIGNMENT)
    constant = replace(graph.constant_data[index], size=len(content), named_key=key)
    graph.constant_data[index] = constant
    if all(each.named_key != former for each in graph.constant_data):
        del store.pte_data[former]


def _convert_layout(graph: XNNGraph, convert: XNode, transpose: XNode) -> None:
    """Replace the transpose to (1, H, W, C) by one to (1, H, W / 2, 2 C), two bytes at a time."""
    codes, target = convert.xnode_union.output_id, transpose.xnode_union.output_id
    _, channels, height, width = _dims(graph, codes)
    pairs = height * width // 2
    planes = _new_value(graph, codes, [channels, pairs, 2])
    pixels = _new_value(graph, codes, [pairs, channels, 2])
    transpose.xnode_union = XNNStaticTranspose(3, [1, 0, 2], planes, pixels, flags=0)
    _set_dims(graph, target, [1, height, width // 2, 2 * channels])
    graph.xnodes[1:2] = [
        _reshape(graph, codes, planes, convert.debug_handle),
        transpose,
        _reshape(graph, pixels, target, transpose.debug_handle),
    ]


def _reshape(graph: XNNGraph, source: int, target: int, debug_handle: int) -> XNode:
    dims = _dims(graph, target)
    return XNode(XNNStaticReshape(len(dims), dims, source, target, flags=0), debug_handle)


def _value(graph: XNNGraph, number: int) -> XNNQuantizedTensorValue:
    values = (value.xvalue_union for value in graph.xvalues)
    quantized = (each for each in values if isinstance(each, XNNQuantizedTensorValue))
    return next(each for each in quantized if each.tensor_value.id_out == number)


def _dims(graph: XNNGraph, number: int) -> list[int]:
    return list(_value(graph, number).tensor_value.dims)


def _set_dims(graph: XNNGraph, number: int, dims: list[int]) -> None:
    tensor = _value(graph, number).tensor_value
    tensor.dims, tensor.num_dims = dims, len(dims)


def _new_value(graph: XNNGraph, like: int, dims: list[int]) -> int:
    """Add a value with the encoding of `like` and other dimensions; return its number."""
    model = _value(graph, like)
    number = len(graph.xvalues)
    tensor = replace(model.tensor_value, id_out=number, dims=dims, num_dims=len(dims))
    graph.xvalues.append(XValue(XNNQuantizedTensorValue(tensor, model.quant_params)))
    return number


def _readers(graph: XNNGraph, value: int) -> int:
    """Return how many operands of all nodes are this value."""
    return sum(_operands(node.xnode_union).count(value) for node in graph.xnodes)


def _operands(union: object) -> list[int]:
    """Return the values that a node reads, without its constants."""
    fields = vars(union).items()
    return [value for name, value in fields if name.startswith("input") and name.endswith("_id")]
