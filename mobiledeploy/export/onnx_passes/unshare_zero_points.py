"""Give every weight a zero-point of its own.

The exporter stores equal zero-points once. On x86 without VNNI the uint8 x int8 kernels saturate at
16 bits, and ONNX Runtime has an option to use uint8 weights instead (`session.x64quantprecision`).
It then renames the zero-point of each weight, and refuses a graph in which two weights share one
("Attempt to replace the existing tensor").
"""

from __future__ import annotations

import onnx_ir as ir

from mobiledeploy.export.onnx_passes.common import add_constant, constant, nodes_of


class UnshareZeroPoints(ir.passes.InPlacePass):
    """Copy every zero-point that more than one node reads."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for node in nodes_of(model, "DequantizeLinear"):
            weight, _, *zero_points = node.inputs
            if not zero_points or zero_points[0] is None or weight is None:
                continue  # a bias has none
            if weight.const_value is None or len(zero_points[0].uses()) == 1:
                continue
            name = f"{weight.name}.zero_point"
            own = add_constant(model.graph, name, constant(zero_points[0]))
            node.replace_input_with(2, own)
            modified = True
        return ir.passes.PassResult(model, modified)
