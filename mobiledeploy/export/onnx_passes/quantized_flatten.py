"""Dequantize -> Reshape -> Quantize -> Flatten of the codes themselves.

Moving bytes needs no arithmetic; and Flatten, unlike Reshape to a constant shape, lets the batch be
of any size.
"""

from __future__ import annotations

import onnx_ir as ir

from mobiledeploy.export.onnx_passes.common import nodes_of, producer, the_user


class QuantizedFlatten(ir.passes.InPlacePass):
    """Replace Reshape to (1, features) by Flatten, on codes where it stands between Q and DQ."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for reshape in nodes_of(model, "Reshape"):
            source = reshape.inputs[0]
            assert source is not None
            first, last = reshape, reshape
            maker = source.producer()
            if maker is not None and maker.op_type == "DequantizeLinear":
                first, last = producer(source), the_user(reshape.outputs[0])
            flatten = ir.node("Flatten", first.inputs[:1], {"axis": 1}, name=reshape.name)
            if last.outputs[0].dtype is not None:
                flatten.outputs[0].dtype = last.outputs[0].dtype
            removed = [reshape] if first is last else [reshape, last]
            ir.convenience.replace_nodes_and_values(
                model.graph, last, removed, [flatten], last.outputs, flatten.outputs
            )
            modified = True
        return ir.passes.PassResult(model, modified)
