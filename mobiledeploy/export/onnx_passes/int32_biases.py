"""Store float biases as int32 with scale s_x * s_w[c], which ONNX Runtime's integer kernels need.

Their zero-point is zero. It is written out, because ONNX Runtime's converter to the ORT format
takes no DequantizeLinear without one; biases of one length share it.

The float biases are already on that grid (see `quantization.weight_rounding`), so the division is
exact and gives the integers that every other runtime recovers.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from mobiledeploy.errors import ExportError
from mobiledeploy.export.onnx_passes.common import (
    add_constant,
    constant,
    is_dequantized,
    nodes_of,
    producer,
)

_OFF_GRID = 0.3  # in steps; float32 rounds a bias of 2**22 steps to a quarter of a step


class Int32Biases(ir.passes.InPlacePass):
    """Store every bias as int32 behind a DequantizeLinear."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for node in nodes_of(model, "Conv", "Gemm"):
            # The exporter's optimizer removes a bias that is all zeros.
            bias = node.inputs[2] if len(node.inputs) > 2 else None
            if bias is None or bias.const_value is None or not is_dequantized(node.inputs[1]):
                continue  # no bias, or the bias of a float layer
            scale = _scale_of(node.inputs[0]) * _scale_of(node.inputs[1])
            steps = constant(bias).astype(np.float64) / scale.astype(np.float64)
            codes = np.rint(steps)
            if np.abs(steps - codes).max() > _OFF_GRID or np.abs(codes).max() >= 2**31:
                raise ExportError(f"The bias {bias.name} is not on its int32 grid.")
            node.replace_input_with(2, _dequantized(model.graph, node, bias, codes, scale))
            modified = True
        return ir.passes.PassResult(model, modified)


def _scale_of(value: ir.Value | None) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Return the scale of the DequantizeLinear that computes a value."""
    return constant(producer(value).inputs[1]).astype(np.float32)


def _dequantized(
    graph: ir.Graph,
    before: ir.Node,
    bias: ir.Value,
    codes: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    scale: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> ir.Value:
    """Return the output of a new DequantizeLinear that computes the bias from its codes."""
    # The exporter stores equal biases once, but every layer has its own scale.
    name = str(bias.name) if len(bias.uses()) == 1 else f"{before.name}.bias"
    node = ir.node(
        "DequantizeLinear",
        [
            add_constant(graph, f"{name}.int32", codes.astype(np.int32)),
            add_constant(graph, f"{name}.scale", scale),
            zero_points_of_biases(graph, codes.size),
        ],
        attributes={"axis": 0},
        name=f"{name}.dequantize",
    )
    node.outputs[0].name = f"{name}.dequantized"
    graph.insert_before(before, node)
    return node.outputs[0]


def zero_points_of_biases(graph: ir.Graph, length: int) -> ir.Value:
    """Return the zero-points, all zero, of a bias of this length."""
    return add_constant(graph, f"bias_zero_points_{length}", np.zeros(length, np.int32))
