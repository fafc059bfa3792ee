"""Pad -> the padding of the convolution behind it, which in ONNX may be asymmetric.

    Pad -> QuantizeLinear -> DequantizeLinear -> Conv,  everything in one encoding

TensorFlow pads one pixel more at the end at stride 2, which PyTorch can only say with an operator
of its own. A convolution pads with zeros too (of codes: with the zero-point), so nothing changes,
but that no operator is left to run between two convolutions. In float the exporter does the same.
"""

from __future__ import annotations

import onnx_ir as ir

from mobiledeploy.errors import ExportError
from mobiledeploy.export.onnx_passes.common import (
    constant,
    nodes_of,
    producer,
    same_encoding,
    the_user,
)


class FoldPads(ir.passes.InPlacePass):
    """Move every padding of height and width with zeros into the convolution that reads it."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for pad in nodes_of(model, "Pad"):
            writing = the_user(pad.outputs[0])
            reading = the_user(writing.outputs[0])
            convolution = the_user(reading.outputs[0])
            if convolution.op_type != "Conv" or not same_encoding(producer(pad.inputs[0]), writing):
                raise ExportError(f"The padding {pad.name} does not lie in front of a convolution.")
            inside = convolution.attributes["pads"].as_ints()
            total = [a + b for a, b in zip(_amounts(pad), inside, strict=True)]
            convolution.attributes["pads"] = ir.AttrInt64s("pads", total)
            convolution.replace_input_with(0, pad.inputs[0])
            model.graph.remove([reading, writing, pad], safe=True)
            modified = True
        return ir.passes.PassResult(model, modified)


def _amounts(pad: ir.Node) -> list[int]:
    """Return (top, left, bottom, right) of a padding of an NCHW tensor with zeros."""
    filler = pad.inputs[2] if len(pad.inputs) > 2 else None
    amounts = [int(amount) for amount in constant(pad.inputs[1])]
    before, after = amounts[:4], amounts[4:]
    if any((*before[:2], *after[:2])) or (filler is not None and constant(filler) != 0):
        raise ExportError(f"The padding {pad.name} does not add zeros to height and width alone.")
    return [*before[2:], *after[2:]]
