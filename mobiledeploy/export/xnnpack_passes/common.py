"""Helpers of the passes: values, constants and readers of an XNNPACK graph."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from executorch.backends.xnnpack.serialization.xnnpack_graph_schema import (
    XNNQuantizedTensorValue,
    XNNStaticConstantPad,
    XNNStaticReshape,
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

TO_PIXELS = (0, 2, 3, 1)
"""The axes of (N, C, H, W) in the order (N, H, W, C)."""


def value_of(graph: XNNGraph, number: int) -> XNNQuantizedTensorValue:
    """Return the quantized value with this number."""
    return next(each for each in _quantized(graph) if each.tensor_value.id_out == number)


def is_quantized(graph: XNNGraph, number: int) -> bool:
    """Return whether the value with this number is quantized."""
    return any(each.tensor_value.id_out == number for each in _quantized(graph))


def _quantized(graph: XNNGraph) -> Iterator[XNNQuantizedTensorValue]:
    values = (value.xvalue_union for value in graph.xvalues)
    return (each for each in values if isinstance(each, XNNQuantizedTensorValue))


def dims_of(graph: XNNGraph, number: int) -> list[int]:
    """Return the dimensions of a quantized value."""
    return list(value_of(graph, number).tensor_value.dims)


def set_dims(graph: XNNGraph, number: int, dims: list[int]) -> None:
    """Change the dimensions of a quantized value."""
    tensor = value_of(graph, number).tensor_value
    tensor.dims, tensor.num_dims = dims, len(dims)


def new_value(graph: XNNGraph, like: int, dims: list[int]) -> int:
    """Add a value with the encoding of `like` and other dimensions; return its number."""
    model = value_of(graph, like)
    number = len(graph.xvalues)
    tensor = replace(model.tensor_value, id_out=number, dims=dims, num_dims=len(dims))
    graph.xvalues.append(XValue(XNNQuantizedTensorValue(tensor, model.quant_params)))
    return number


def new_reshape(graph: XNNGraph, source: int, target: int, debug_handle: int) -> XNode:
    """Return a node that reshapes one value to the dimensions of another."""
    dims = dims_of(graph, target)
    return XNode(XNNStaticReshape(len(dims), dims, source, target, flags=0), debug_handle)


def absorb_padding(convolution: XNode, pad: XNNStaticConstantPad) -> bool:
    """Move zero padding of height and width into a convolution; return whether it is that.

    Args:
        convolution: What reads the padded pixels.
        pad: The padding, (N, H, W, C).
    """
    (_, top, left, front), (_, bottom, right, back) = pad.pre_paddings, pad.post_paddings
    if pad.padding_value != 0 or front or back:
        return False
    stem = convolution.xnode_union
    convolution.xnode_union = replace(
        stem,
        padding_top=stem.padding_top + top,
        padding_left=stem.padding_left + left,
        padding_bottom=stem.padding_bottom + bottom,
        padding_right=stem.padding_right + right,
    )
    return True


def in_pixels(pad: XNNStaticConstantPad) -> XNNStaticConstantPad:
    """Return padding of planes, (N, C, H, W), as that of pixels, (N, H, W, C)."""
    before, after = (
        [amounts[axis] for axis in TO_PIXELS] for amounts in (pad.pre_paddings, pad.post_paddings)
    )
    return replace(pad, pre_paddings=before, post_paddings=after)


def readers_of(graph: XNNGraph, value: int) -> int:
    """Return how many operands of all nodes are this value."""
    return sum(operands_of(node.xnode_union).count(value) for node in graph.xnodes)


def operands_of(union: object) -> list[int]:
    """Return the values that a node reads, without its constants."""
    fields = vars(union).items()
    return [value for name, value in fields if name.startswith("input") and name.endswith("_id")]


def constant_of(graph: XNNGraph, store: NamedDataStore, index: int) -> bytes:
    """Return the bytes of a constant."""
    entry = store.pte_data[graph.constant_data[index].named_key]
    return bytes(store.buffers[entry.buffer_index])


def set_constant(graph: XNNGraph, store: NamedDataStore, index: int, content: bytes) -> None:
    """Replace a constant; drop the old one from the store if nothing else reads it."""
    former = graph.constant_data[index].named_key
    key = hashlib.sha256(content).hexdigest()
    store.add_named_data(key, content, CONSTANT_TENSOR_ALIGNMENT)
    constant = replace(graph.constant_data[index], size=len(content), named_key=key)
    graph.constant_data[index] = constant
    if all(each.named_key != former for each in graph.constant_data):
        del store.pte_data[former]
