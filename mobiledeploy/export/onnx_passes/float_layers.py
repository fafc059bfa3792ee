"""Keep float layers in float: dequantize their input per channel.

    codes -> DequantizeLinear (s, z) -> Conv -> codes                ORT quantizes the weights
    codes -> DequantizeLinear ([s, ...], axis 1) -> Conv -> codes    the weights stay float

The values are the same, because every channel gets the tensor's scale. Why: if a convolution with
float weights reads a per-tensor dequantized input and its output is quantized, ONNX Runtime
quantizes the weights to int8 with one scale per tensor (since 1.20; onnxruntime,
core/optimizer/qdq_transformer/weight_bias_quantization.cc). That cost 11 dB for a squeeze layer.
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


class KeepFloatLayers(ir.passes.InPlacePass):
    """Dequantize the input of every layer with float weights per channel."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for node in _float_layers(model):
            if is_dequantized(node.inputs[0]):
                node.replace_input_with(0, _per_channel(model.graph, node))
                modified = True
        return ir.passes.PassResult(model, modified)

    def ensures(self, model: ir.Model) -> None:
        for node in _float_layers(model):
            if is_dequantized(node.inputs[0]):
                scale = constant(producer(node.inputs[0]).inputs[1])
                if scale.ndim != 1:
                    raise ExportError(f"ONNX Runtime would quantize the float layer {node.name}.")


def _float_layers(model: ir.Model) -> list[ir.Node]:
    return [n for n in nodes_of(model, "Conv", "Gemm") if not is_dequantized(n.inputs[1])]


def _per_channel(graph: ir.Graph, layer: ir.Node) -> ir.Value:
    """Return the input of a layer, dequantized with one scale per channel."""
    value = layer.inputs[0]
    assert value is not None
    assert value.shape is not None, value
    reading = producer(value)
    channels = value.shape[1]
    assert isinstance(channels, int), value
    scale, zero_point = (
        np.repeat(constant(reading.inputs[i]).reshape(1), channels) for i in (1, 2)
    )
    name = f"{layer.name}.input"
    node = ir.node(
        "DequantizeLinear",
        [
            reading.inputs[0],
            add_constant(graph, f"{name}.scale", scale),
            add_constant(graph, f"{name}.zero_point", zero_point),
        ],
        attributes={"axis": 1},
        name=f"{name}.dequantize",
    )
    node.outputs[0].name = f"{name}.dequantized"
    graph.insert_before(layer, node)
    return node.outputs[0]
