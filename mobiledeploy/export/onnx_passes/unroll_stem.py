"""Unroll the stem: the rows under its kernel become channels, so its kernel has one row.

    codes (N, C, H, W)                                   Conv k x l, stride (s, t)
    codes -> Pad -> Gather -> Reshape (N, C k, H', W)    Conv 1 x l, stride (1, t)

The Gather takes, for each row i of the kernel and each row y of the output, the row that they
multiply: y s + i d of the padded image (d: the dilation). The padding holds the zero-point, as a
convolution's own does, so the integer sums have the same terms. The kernel gets rows of zeros until
C k is a multiple of 4, for which ONNX Runtime has a direct convolution on x86-64.

Why (decision record 0027 has the figures): on ARM64 ONNX Runtime copies the image a few bytes at a
time, once per row of the kernel and output pixel, before it multiplies. That took more instructions
than the products. The Gather copies whole rows. Only the image itself is unrolled, and only while
it is in planes: there, rows are contiguous, and from planes more channels are faster to bring to
channels-last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from mobiledeploy.errors import ExportError
from mobiledeploy.export.onnx_passes.common import (
    add_constant,
    constant,
    is_dequantized,
    nodes_of,
    producer,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MULTIPLE = 4
_MOST_CHANNELS = 4  # of the image, alpha included


class UnrollStem(ir.passes.InPlacePass):
    """Unroll the rows of every dense int8 convolution that reads the planes of the image."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for node in nodes_of(model, "Conv"):
            image = _image_read_by(node)
            if image is not None and _can_be_unrolled(node):
                _unroll(model.graph, node, height=_height_of(image))
                modified = True
        return ir.passes.PassResult(model, modified)


def _image_read_by(convolution: ir.Node) -> ir.Value | None:
    """Return the image in planes whose codes a convolution reads; channels may be added to it."""
    if not is_dequantized(convolution.inputs[0]):
        return None
    value = producer(convolution.inputs[0]).inputs[0]
    while value is not None and (node := value.producer()) is not None:
        if node.op_type != "QuantizeLinear" and not _adds_channels(node):
            return None
        value = node.inputs[0]
    return value if value is not None and value.is_graph_input() else None


def _adds_channels(node: ir.Node) -> bool:
    """Return whether it pads channels and nothing else, as an image without alpha needs it."""
    if node.op_type != "Pad":
        return False
    amounts = constant(node.inputs[1])
    return amounts.size == 8 and not np.delete(amounts, 5).any()


def _height_of(image: ir.Value) -> int:
    height = image.shape[2] if image.shape is not None else None
    if not isinstance(height, int):
        raise ExportError(f"The height of the image {image.name} is not known.")
    return height


def _can_be_unrolled(convolution: ir.Node) -> bool:
    """Return whether it is dense and int8, with weights of its own and more than one row."""
    if not is_dequantized(convolution.inputs[1]):
        return False
    weights = producer(convolution.inputs[1])
    _, channels, *kernel = constant(weights.inputs[0]).shape
    return (
        len(kernel) == 2
        and kernel[0] > 1
        and channels <= _MOST_CHANNELS
        and convolution.attributes.get_int("group", 1) == 1
        and len(weights.outputs[0].uses()) == 1
    )


def _unroll(graph: ir.Graph, convolution: ir.Node, height: int) -> None:
    """Replace the input of a convolution by its rows in channels, and its weight accordingly."""
    weights = producer(convolution.inputs[1])
    weight = constant(weights.inputs[0])
    outputs, channels, kernel, width = weight.shape
    rows = _rows_under(convolution, kernel, height)
    missing = next(n for n in range(_MULTIPLE) if (kernel + n) * channels % _MULTIPLE == 0)
    rows = np.pad(rows, [(0, missing), (0, 0)])  # any row: its weights are zero
    weight = np.pad(weight, [(0, 0), (0, 0), (0, missing), (0, 0)])
    convolution.replace_input_with(0, _rows_in_channels(graph, convolution, rows, channels))
    flat = weight.reshape(outputs, channels * (kernel + missing), 1, width)
    weights.replace_input_with(0, add_constant(graph, f"{convolution.name}.unrolled", flat))
    attributes = convolution.attributes
    _, left, _, right = attributes["pads"].as_ints()
    for name, values in (
        ("kernel_shape", [1, width]),
        ("strides", [1, attributes["strides"].as_ints()[1]]),
        ("dilations", [1, attributes["dilations"].as_ints()[1]]),
        ("pads", [0, left, 0, right]),
    ):
        attributes[name] = ir.AttrInt64s(name, values)


def _rows_under(convolution: ir.Node, kernel: int, height: int) -> NDArray[np.int64]:
    """Return the row of the padded image for each row of the kernel and of the output."""
    stride, dilation = (
        convolution.attributes[key].as_ints()[0] for key in ("strides", "dilations")
    )
    above, _, below, _ = convolution.attributes["pads"].as_ints()
    outputs = (height + above + below - (kernel - 1) * dilation - 1) // stride + 1
    return np.arange(kernel)[:, None] * dilation + np.arange(outputs) * stride


def _rows_in_channels(
    graph: ir.Graph, convolution: ir.Node, rows: NDArray[np.int64], channels: int
) -> ir.Value:
    """Insert the Pad, the Gather and the Reshape; return what the convolution reads."""
    reading = producer(convolution.inputs[0])
    codes, scale, zero_point = reading.inputs
    above, _, below, _ = convolution.attributes["pads"].as_ints()
    name = convolution.name
    nodes: list[ir.Node] = []

    def add(operator: str, operand: NDArray[np.int64], role: str, **attributes: int) -> None:
        source = nodes[-1].outputs[0] if nodes else codes
        inputs = [source, add_constant(graph, f"{name}.{role}.values", operand)]
        if operator == "Pad":
            inputs.append(zero_point)
        nodes.append(ir.node(operator, inputs, attributes, name=f"{name}.{role}"))
        nodes[-1].outputs[0].dtype = ir.DataType.UINT8

    if above or below:
        add("Pad", np.array([0, 0, above, 0, 0, 0, below, 0]), "pad")
    add("Gather", rows, "rows", axis=2)
    add("Reshape", np.array([0, channels * len(rows), rows.shape[1], -1]), "channels")
    last = nodes[-1].outputs[0]
    nodes.append(ir.node("DequantizeLinear", [last, scale, zero_point], name=f"{name}.reading"))
    for node in nodes:
        node.outputs[0].name = f"{node.name}.out"
    graph.insert_before(convolution, nodes)
    return nodes[-1].outputs[0]
