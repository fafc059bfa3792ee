"""Replace Dequantize -> Reshape -> Quantize by a Flatten of the codes.

Moving bytes needs no arithmetic. Unlike Reshape to a constant shape, Flatten allows any batch size.
"""

from __future__ import annotations

import onnx_ir as ir

from mobiledeploy.export.onnx_passes.common import constant, nodes_of, only_user, producer


class QuantizedFlatten(ir.passes.InPlacePass):
    """Replace Reshape to (1, features) by Flatten; in an int8 graph it flattens the codes."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for reshape in nodes_of(model, "Reshape"):
            if constant(reshape.inputs[1]).size != 2:
                continue
            source = reshape.inputs[0]
            assert source is not None
            first, last = reshape, reshape
            writer = source.producer()
            if writer is not None and writer.op_type == "DequantizeLinear":
                first, last = producer(source), only_user(reshape.outputs[0])
            flatten = ir.node("Flatten", first.inputs[:1], {"axis": 1}, name=reshape.name)
            if last.outputs[0].dtype is not None:
                flatten.outputs[0].dtype = last.outputs[0].dtype
            removed = [reshape] if first is last else [reshape, last]
            ir.convenience.replace_nodes_and_values(
                model.graph, last, removed, [flatten], last.outputs, flatten.outputs
            )
            modified = True
        return ir.passes.PassResult(model, modified)
