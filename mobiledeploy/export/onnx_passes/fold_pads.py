"""Fold a Pad into the padding of the convolution that reads it, which ONNX allows to be asymmetric.

    Pad -> QuantizeLinear -> DequantizeLinear -> Conv,  all with one encoding

At stride 2 TensorFlow pads one more pixel at the end, which PyTorch expresses with an operator of
its own. A convolution also pads with zeros (in int8: with the zero-point), so the result is the
same, and no operator is left between two convolutions. For float graphs the exporter does this
itself.
"""

from __future__ import annotations

import onnx_ir as ir

from mobiledeploy.errors import ExportError
from mobiledeploy.export.onnx_passes.common import (
    constant,
    nodes_of,
    only_user,
    producer,
    same_encoding,
)


class FoldPads(ir.passes.InPlacePass):
    """Move every zero padding of height and width into the convolution that reads it."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for pad in nodes_of(model, "Pad"):
            if pad.inputs[0] in model.graph.inputs:  # that of `PixelInput`
                continue
            writing = only_user(pad.outputs[0])
            if writing.op_type != "QuantizeLinear":  # a layer in float reads it
                continue
            reading = only_user(writing.outputs[0])
            convolution = only_user(reading.outputs[0])
            if convolution.op_type != "Conv" or not same_encoding(producer(pad.inputs[0]), writing):
                raise ExportError(
                    f"The padding {pad.name} is not read by a convolution in the same encoding."
                )
            inside = convolution.attributes["pads"].as_ints()
            total = [a + b for a, b in zip(_amounts(pad), inside, strict=True)]
            convolution.attributes["pads"] = ir.AttrInt64s("pads", total)
            convolution.replace_input_with(0, pad.inputs[0])
            model.graph.remove([reading, writing, pad], safe=True)
            modified = True
        return ir.passes.PassResult(model, modified)


def _amounts(pad: ir.Node) -> list[int]:
    """Return (top, left, bottom, right) of a zero padding of an NCHW tensor."""
    filler = pad.inputs[2] if len(pad.inputs) > 2 else None
    amounts = [int(amount) for amount in constant(pad.inputs[1])]
    before, after = amounts[:4], amounts[4:]
    if any((*before[:2], *after[:2])) or (filler is not None and constant(filler) != 0):
        raise ExportError(f"The padding {pad.name} does more than add zeros to height and width.")
    return [*before[2:], *after[2:]]
