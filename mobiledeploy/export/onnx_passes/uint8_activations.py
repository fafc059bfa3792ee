"""Store int8 activations as uint8: q + 128, with the zero-point shifted by 128 too.

(q + 128) - (z + 128) = q - z, so only the storage changes. ONNX Runtime has integer kernels for
uint8 x int8 on every platform. With int8 activations its x86-64 build runs convolutions in float.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from mobiledeploy.errors import ExportError
from mobiledeploy.export.onnx_passes.common import add_constant, constant, nodes_of


class Uint8Activations(ir.passes.InPlacePass):
    """Shift the zero-point of every activation by 128."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for node in nodes_of(model, "QuantizeLinear", "DequantizeLinear"):
            source = node.inputs[0]
            assert source is not None
            if source.const_value is not None:  # a weight
                continue
            zero_point = constant(node.inputs[2])
            if zero_point.dtype != np.int8:
                continue
            shifted = np.array(int(zero_point) + 128, np.uint8)
            node.replace_input_with(
                2, add_constant(model.graph, f"zero_point_{int(shifted)}", shifted)
            )
            if node.op_type == "QuantizeLinear":
                node.outputs[0].dtype = ir.DataType.UINT8
            modified = True
        return ir.passes.PassResult(model, modified)

    def ensures(self, model: ir.Model) -> None:
        for node in nodes_of(model, "QuantizeLinear"):
            if constant(node.inputs[2]).dtype != np.uint8:
                raise ExportError(f"The activation {node.name} is not uint8.")
