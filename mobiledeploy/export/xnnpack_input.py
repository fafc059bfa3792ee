"""The image is made channels-last before it is quantized, not after.

    quantize (NCHW) -> transpose int8    as ExecuTorch lowers it: 154 us
    transpose float -> quantize (NHWC)   the same codes: 68 us

for (1, 3, 224, 224) on x86-64, one thread (docs/decisions/0004). XNNPACK transposes tiles: of int8,
32 x 32 (AVX2) or 16 x 16 (NEON) elements, of which an image of three channels fills three rows; of
float, 4 x 4 or 8 x 8. Quantization works element by element and does not mind the order.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from executorch.backends.xnnpack import xnnpack_preprocess
from executorch.backends.xnnpack.serialization.xnnpack_graph_schema import (
    XNNConvert,
    XNNDatatype,
    XNNStaticTranspose,
    XNNTensorValue,
    XValue,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from executorch.backends.xnnpack.serialization.xnnpack_graph_schema import XNNGraph

# XNN_INVALID_VALUE_ID: of tensors that do not leave the delegate
_INTERNAL = 0xFFFFFFFF


@contextmanager
def image_transposed_in_float() -> Iterator[None]:
    """Within the context, graphs are serialized with the transposition first.

    ExecuTorch has no pass that could do it: layouts are decided after its last one.
    """
    serialize = xnnpack_preprocess.serialize_xnnpack_binary

    def transposed_first(graph: XNNGraph, constants: bytearray) -> bytes:
        transpose_first(graph)
        return bytes(serialize(graph, constants))

    xnnpack_preprocess.serialize_xnnpack_binary = transposed_first
    try:
        yield
    finally:
        xnnpack_preprocess.serialize_xnnpack_binary = serialize


def transpose_first(graph: XNNGraph) -> None:
    """Swap a conversion of the graph's input and the transposition behind it, in place.

    Graphs that do not begin with the two, such as float ones, stay as they are.
    """
    if len(graph.xnodes) < 2:
        return
    convert, transpose = (node.xnode_union for node in graph.xnodes[:2])
    if not isinstance(convert, XNNConvert) or not isinstance(transpose, XNNStaticTranspose):
        return
    between = convert.output_id
    if transpose.input_id != between or _readers(graph, between) != 1:
        return
    values = {_id_of(value): i for i, value in enumerate(graph.xvalues)}
    source = graph.xvalues[values[convert.input_id]].xvalue_union
    graph.xvalues[values[between]] = XValue(
        xvalue_union=XNNTensorValue(
            datatype=XNNDatatype.xnn_datatype_fp32,
            num_dims=source.num_dims,
            dims=[source.dims[axis] for axis in transpose.perm],
            constant_buffer_idx=0,
            external_id=_INTERNAL,
            flags=0,
            id_out=between,
        )
    )
    transpose.input_id, transpose.output_id, convert.input_id, convert.output_id = (
        convert.input_id,
        between,
        between,
        transpose.output_id,
    )
    graph.xnodes[:2] = graph.xnodes[1::-1]


def _id_of(value: XValue) -> int:
    union = value.xvalue_union
    return int(getattr(union, "tensor_value", union).id_out)


def _readers(graph: XNNGraph, value: int) -> int:
    """Count the operands of all nodes that are this value."""
    return sum(
        number == value
        for node in graph.xnodes
        for name, number in vars(node.xnode_union).items()
        if name.startswith("input") and name.endswith("_id")
    )
