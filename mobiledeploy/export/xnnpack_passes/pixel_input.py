"""Pixels as the input of an XNNPACK graph: uint8 (1, H, W, C) or (1, C, H, W), read in that order.

In: the graph that ExecuTorch lowers a program of pixels to (`export.pixel_program`). ExecuTorch
takes the pixels for int8. It moves those with channels last into planes and back again, and
converts planes to float and back again. Out: the same codes by one conversion of bytes,

    pixels, uint8, zero-point 0  ->  codes, int8, zero-point -128,        code = pixel - 128

Both have the scale 1, so nothing is rounded. XNNPACK's convolutions have no kernels for uint8
activations with a scale per output channel, hence the conversion.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from executorch.backends.xnnpack.serialization.xnnpack_graph_schema import (
    PerTensorQuant,
    XNNConv2d,
    XNNConvert,
    XNNDatatype,
    XNNStaticConstantPad,
    XNNStaticTranspose,
    XNode,
)

from mobiledeploy.export.xnnpack_passes.common import (
    absorb_padding,
    dims_of,
    in_pixels,
    is_quantized,
    new_value,
    operands_of,
    readers_of,
    set_dims,
    value_of,
)

if TYPE_CHECKING:
    from executorch.backends.xnnpack.serialization.xnnpack_graph_schema import XNNGraph

_INTERNAL = {"external_id": 0xFFFFFFFF, "flags": 0}


def read_pixels(graph: XNNGraph) -> bool:
    """Convert the input of a graph in place; return whether the stem then reads (1, H, W, C).

    A graph whose input is not quantized, that of a float image, stays as it is. So does one that
    also takes numbers, which float networks may hold.
    """
    pixels, *others = graph.input_ids
    if others or not is_quantized(graph, pixels):
        return False
    given = value_of(graph, pixels)
    given.tensor_value = replace(given.tensor_value, datatype=XNNDatatype.xnn_datatype_quint8)
    given.quant_params = PerTensorQuant(scale=1.0, zero_point=0)
    if isinstance(graph.xnodes[0].xnode_union, XNNConvert):
        _convert_once(graph)
        return False
    codes = new_value(graph, pixels, dims_of(graph, pixels))
    inside = value_of(graph, codes)
    inside.tensor_value = replace(
        inside.tensor_value, datatype=XNNDatatype.xnn_datatype_qint8, **_INTERNAL
    )
    inside.quant_params = PerTensorQuant(scale=1.0, zero_point=-128)
    for node in graph.xnodes:
        _rename_operands(node, {pixels: codes})
        if isinstance(node.xnode_union, XNNStaticTranspose) and node.xnode_union.input_id == codes:
            # it holds pixels if also a stem in float reads it
            value_of(graph, node.xnode_union.output_id).quant_params = inside.quant_params
    handle = graph.xnodes[0].debug_handle
    graph.xnodes.insert(0, XNode(XNNConvert(pixels, codes, flags=0), handle))
    _stay_in_pixels(graph, codes)
    return True


def _convert_once(graph: XNNGraph) -> None:
    """Replace a conversion of planes to float and then to codes, if no stem reads the floats."""
    first, second = (node.xnode_union for node in graph.xnodes[:2])
    if isinstance(second, XNNConvert) and readers_of(graph, first.output_id) == 1:
        graph.xnodes[0].xnode_union = replace(first, output_id=second.output_id)
        del graph.xnodes[1]


def _stay_in_pixels(graph: XNNGraph, codes: int) -> None:
    """Remove the transposes between the codes and the only convolution that reads them."""
    chain: list[XNode] = []
    for node in graph.xnodes[1:]:
        last = chain[-1].xnode_union.output_id if chain else codes
        if operands_of(node.xnode_union) != [last] or readers_of(graph, last) != 1:
            return
        if isinstance(node.xnode_union, XNNConv2d):
            break
        if not isinstance(node.xnode_union, XNNStaticTranspose | XNNStaticConstantPad):
            return
        chain.append(node)
    convolution = graph.xnodes[1 + len(chain)]
    value, kept = codes, []
    for node in chain:
        if isinstance(node.xnode_union, XNNStaticConstantPad):
            _pad_pixels(graph, node, value)
            if absorb_padding(convolution, node.xnode_union):
                continue
            value = node.xnode_union.output_id
            kept.append(node)
    _rename_operands(convolution, {chain[-1].xnode_union.output_id: value} if chain else {})
    graph.xnodes[1 : 1 + len(chain)] = kept


def _pad_pixels(graph: XNNGraph, node: XNode, source: int) -> None:
    """Make a pad of planes one of pixels."""
    pad = node.xnode_union = replace(in_pixels(node.xnode_union), input_id=source)
    padded = zip(dims_of(graph, source), pad.pre_paddings, pad.post_paddings, strict=True)
    set_dims(graph, pad.output_id, [sum(amounts) for amounts in padded])


def _rename_operands(node: XNode, names: dict[int, int]) -> None:
    changed = {
        field: names[value]
        for field, value in vars(node.xnode_union).items()
        if field.startswith("input") and field.endswith("_id") and value in names
    }
    node.xnode_union = replace(node.xnode_union, **changed)
