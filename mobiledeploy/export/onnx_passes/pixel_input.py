"""Read pixels: the input becomes uint8 (N, H, W, C), and its quantization disappears.

    image -> QuantizeLinear (scale 1, zero-point 0)      ->  codes (N, C, H, W)
    pixels -> Transpose                                   ->  the same codes

The codes of pixels are the pixels, so nothing is computed. ONNX Runtime runs convolutions in
channels-last order and cancels the Transpose against its own. Pixels without alpha get it from a
Pad with 255, which takes the place of the one that fills the stem's channels with zeros.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from mobiledeploy.errors import ExportError
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
        quantize = only_user(source)
        if quantize.op_type != "QuantizeLinear":
            raise ExportError("Pixels are read by a layer in float; expected an int8 convolution.")
        nodes, last = [], quantize
        pixels, codes = source, quantize.outputs[0]
        reading = [usage.node for usage in codes.uses()]
        padding = only_user(reading[0].outputs[0]) if len(reading) == 1 else None
        if padding is not None and padding.op_type == "Pad" and _adds_channels(padding):
            last = only_user(padding.outputs[0])
            codes = last.outputs[0]
            nodes.append(_opaque_channels(model.graph, source, padding))
            pixels = nodes[-1].outputs[0]
        nodes.append(ir.node("Transpose", [pixels], {"perm": _TO_PLANES}, name="input.planes"))
        nodes[-1].outputs[0].dtype = ir.DataType.UINT8
        former = [quantize] if last is quantize else [quantize, reading[0], padding, last]
        ir.convenience.replace_nodes_and_values(
            model.graph, quantize, [n for n in former if n], nodes, [codes], nodes[-1].outputs
        )
        source.dtype = ir.DataType.UINT8
        source.shape = ir.Shape([1, *self._image.artifact_shape])
        return ir.passes.PassResult(model, modified=True)


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
