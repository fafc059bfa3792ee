"""Read pixels: the input becomes uint8, and its quantization disappears.

    image -> QuantizeLinear (scale 1, zero-point 0)      ->  codes (N, C, H, W)
    pixels (N, H, W, C) -> Transpose                      ->  the same codes
    pixels (N, C, H, W)                                   ->  the same codes

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
            self._as_codes(model.graph, source, readers[0])
        else:
            self._as_floats(model.graph, source)
        source.dtype = ir.DataType.UINT8
        source.shape = ir.Shape([1, *self._image.artifact_shape])
        return ir.passes.PassResult(model, modified=True)

    def _as_codes(self, graph: ir.Graph, source: ir.Value, quantize: ir.Node) -> None:
        """Replace the quantization, and the padding with opaque channels behind it."""
        nodes, former = [], [quantize]
        pixels, codes = source, quantize.outputs[0]
        reading = next(usage.node for usage in codes.uses())
        padding = next(usage.node for usage in reading.outputs[0].uses())
        if padding.op_type == "Pad" and _adds_channels(padding):  # it alone reads the image
            last = only_user(padding.outputs[0])
            former += [reading, padding, last]
            codes = last.outputs[0]
            nodes.append(self._opaque_channels(graph, source, padding))
            pixels = nodes[-1].outputs[0]
        nodes += self._planes(pixels)
        if nodes:
            planes = nodes[-1].outputs
            ir.convenience.replace_nodes_and_values(graph, quantize, former, nodes, [codes], planes)
        else:  # it would rename the input
            ir.convenience.replace_all_uses_with(codes, source)
            graph.remove(quantize, safe=True)

    def _as_floats(self, graph: ir.Graph, source: ir.Value) -> None:
        """Convert pixels for a stem that computes in float."""
        planes = self._planes(source)
        value = planes[-1].outputs[0] if planes else source
        convert = ir.node("Cast", [value], {"to": ir.DataType.FLOAT}, name="input.float")
        ir.convenience.replace_all_uses_with(source, convert.outputs[0])
        (planes or [convert])[0].replace_input_with(0, source)
        graph.insert_before(graph[0], [*planes, convert])

    def _planes(self, pixels: ir.Value) -> list[ir.Node]:
        """Return the Transpose of pixels to planes; nothing if they are planes."""
        if self._image.format.layout == "NCHW":
            return []
        axes = self._image.format.planes_axes
        node = ir.node("Transpose", [pixels], {"perm": axes}, name="input.planes")
        node.outputs[0].dtype = ir.DataType.UINT8
        return [node]

    def _opaque_channels(self, graph: ir.Graph, pixels: ir.Value, padding: ir.Node) -> ir.Node:
        """Return a Pad of pixels for one of codes."""
        amounts = np.zeros(8, np.int64)
        amounts[4 + self._image.format.layout.index("C")] = constant(padding.inputs[1])[5]
        pads = add_constant(graph, "input.pads", amounts)
        opaque = add_constant(graph, "input.opaque", np.array(255, np.uint8))
        node = ir.node("Pad", [pixels, pads, opaque], name="input.opaque_channels")
        node.outputs[0].dtype = ir.DataType.UINT8
        return node


def _adds_channels(padding: ir.Node) -> bool:
    return bool(constant(padding.inputs[1])[5])
