"""A zero-point of its own for every weight.

The exporter stores equal zero-points once. On x86 without VNNI, whose uint8 x int8 kernels saturate
at 16 bits, ONNX Runtime can be told to make uint8 weights instead
(`session.x64quantprecision`); it then renames each weight's zero-point, and refuses a graph in
which two weights share one ("Attempt to replace the existing tensor").
"""

from __future__ import annotations

import onnx_ir as ir

from mobiledeploy.export.onnx_passes.common import add_constant, constant, nodes_of


class UnshareZeroPoints(ir.passes.InPlacePass):
    """Copy the zero-points of weights that are shared."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for node in nodes_of(model, "DequantizeLinear"):
            weight, _, *zero_points = node.inputs
            if not zero_points or zero_points[0] is None or weight is None:
                continue  # a bias
            if weight.const_value is None or len(zero_points[0].uses()) == 1:
                continue
            name = f"{weight.name}.zero_point"
            own = add_constant(model.graph, name, constant(zero_points[0]))
            node.replace_input_with(2, own)
            modified = True
        return ir.passes.PassResult(model, modified)
