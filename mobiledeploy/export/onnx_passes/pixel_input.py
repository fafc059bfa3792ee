"""Read pixels: the input becomes uint8 (N, H, W, C), and its quantization disappears.

    image -> QuantizeLinear (scale 1, zero-point 0)      ->  codes (N, C, H, W)
    pixels -> Transpose                                   ->  the same codes

The codes of pixels are the pixels, so nothing is computed. ONNX Runtime runs convolutions in
channels-last order and cancels the Transpose against its own. Pixels without alpha get it from a
Pad with 255, which takes the place of the one that fills the stem's channels with zeros. A stem in
float reads the pixels through a Cast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from mobiledeploy.export.onnx_passes.common import add_constant, constant, only_user

if TYPE_CHECKING:
    from mobiledeploy.network import InputSpec

_TO_PLANES = (0, 3, 1, 2)


class PixelInput(ir.passes.InPlacePass):
    """Replace the float input and its QuantizeLinear by pixels.

    Args:
        image: The network's input; with the format "float" nothing changes.
    """

    def __init__(self, image: InputSpec) -> None:
        super().__init__()
        self._image = image

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        if not self._image.format.is_pixels:
            return ir.passes.PassResult(model, modified=False)
        (source,) = model.graph.inputs
        readers = [usage.node for usage in source.uses()]
        if [reader.op_type for reader in readers] == ["QuantizeLinear"]:
            _pixels_as_codes(model.graph, source, readers[0])
        else:
            _pixels_as_floats(model.graph, source)
        source.dtype = ir.DataType.UINT8
        source.shape = ir.Shape([1, *self._image.artifact_shape])
        return ir.passes.PassResult(model, modified=True)


def _pixels_as_codes(graph: ir.Graph, source: ir.Value, quantize: ir.Node) -> None:
    """Replace the quantization, and the padding with opaque channels behind it."""
    nodes, former = [], [quantize]
    pixels, codes = source, quantize.outputs[0]
    reading = [usage.node for usage in codes.uses()]
    padding = only_user(reading[0].outputs[0]) if len(reading) == 1 else None
    if padding is not None and padding.op_type == "Pad" and _adds_channels(padding):
        last = only_user(padding.outputs[0])
        former += [reading[0], padding, last]
        codes = last.outputs[0]
        nodes.append(_opaque_channels(graph, source, padding))
        pixels = nodes[-1].outputs[0]
    nodes.append(_planes(pixels))
    ir.convenience.replace_nodes_and_values(
        graph, quantize, former, nodes, [codes], nodes[-1].outputs
    )


def _pixels_as_floats(graph: ir.Graph, source: ir.Value) -> None:
    """Convert pixels for a stem that computes in float."""
    planes = _planes(source)
    convert = ir.node("Cast", planes.outputs, {"to": ir.DataType.FLOAT}, name="input.float")
    ir.convenience.replace_all_uses_with(source, convert.outputs[0])
    planes.replace_input_with(0, source)
    graph.insert_before(graph[0], [planes, convert])


def _planes(pixels: ir.Value) -> ir.Node:
    node = ir.node("Transpose", [pixels], {"perm": _TO_PLANES}, name="input.planes")
    node.outputs[0].dtype = ir.DataType.UINT8
    return node


def _adds_channels(padding: ir.Node) -> bool:
    return bool(constant(padding.inputs[1])[5])


def _opaque_channels(graph: ir.Graph, pixels: ir.Value, padding: ir.Node) -> ir.Node:
    """Return a Pad of pixels, (N, H, W, C), for one of planes."""
    count = int(constant(padding.inputs[1])[5])
    amounts = add_constant(graph, "input.pads", np.array([0, 0, 0, 0, 0, 0, 0, count]))
    opaque = add_constant(graph, "input.opaque", np.array(255, np.uint8))
    node = ir.node("Pad", [pixels, amounts, opaque], name="input.opaque_channels")
    node.outputs[0].dtype = ir.DataType.UINT8
    return node
