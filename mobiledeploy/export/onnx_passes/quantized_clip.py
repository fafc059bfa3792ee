"""Replace Conv -> Clip -> Quantize by Conv -> Quantize -> Clip of the codes.

The graph holds a clamp only where saturation does not enforce it: where a ReLU6 feeds a residual
connection with a wider range. Rounding is monotone, so

    round(min(x, 6) / s) = min(round(x / s), round(6 / s))

ONNX Runtime fuses a convolution with the Quantize that follows it. With a Clip in between it would
compute both in float. A clamp of codes, Dequantize -> Clip -> Quantize, becomes a Clip of the codes
too: both sides have one encoding.
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
    only_user,
    producer,
    same_encoding,
)


class QuantizedClip(ir.passes.InPlacePass):
    """Move every clamp that follows an integer operator behind its Quantize."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        clamps = _clamps(model)
        for node in clamps:
            _move(model.graph, node)
        return ir.passes.PassResult(model, bool(clamps))

    def ensures(self, model: ir.Model) -> None:
        if _clamps(model):
            raise ExportError("A clamp is left; it would keep its operator in float.")


def _clamps(model: ir.Model) -> list[ir.Node]:
    """Return the clamps of codes, and of operators whose inputs are all quantized."""
    return [
        node
        for node in nodes_of(model, "Clip", "Relu")
        if is_dequantized(node.inputs[0])
        or (
            _is_computed(node.inputs[0])
            and all(is_dequantized(value) for value in producer(node.inputs[0]).inputs[:2])
        )
    ]


def _is_computed(value: ir.Value | None) -> bool:
    """Return whether a convolution, a matrix product or an addition computes a value."""
    node = value.producer() if value is not None else None
    return node is not None and node.op_type in ("Conv", "Gemm", "Add")


def _move(graph: ir.Graph, node: ir.Node) -> None:
    quantize = only_user(node.outputs[0])
    source = node.inputs[0]
    assert source is not None
    scale, zero_point = (constant(value) for value in quantize.inputs[1:3])
    least, most = (
        add_constant(graph, f"code_{code}", np.array(code, np.uint8))
        for code in (_code(bound, float(scale), int(zero_point)) for bound in _bounds(node))
    )
    if is_dequantized(source):
        _clamp_codes(graph, node, quantize, least, most)
        return
    quantize.replace_input_with(0, source)
    codes = quantize.outputs[0]
    clip = ir.node("Clip", [codes, least, most], name=f"{node.name}.clip")
    # The clamped codes keep the name by which the network knows this activation.
    clip.outputs[0].name, codes.name = codes.name, f"{codes.name}.unclamped"
    clip.outputs[0].dtype = ir.DataType.UINT8
    ir.convenience.replace_all_uses_with(codes, clip.outputs[0])
    clip.replace_input_with(0, codes)
    graph.insert_after(quantize, clip)
    graph.remove(node, safe=True)


def _clamp_codes(
    graph: ir.Graph, node: ir.Node, quantize: ir.Node, least: ir.Value, most: ir.Value
) -> None:
    """Replace Dequantize -> clamp -> Quantize by a Clip of the codes.

    Raises:
        ExportError: the two sides have different encodings.
    """
    reading = producer(node.inputs[0])
    if not same_encoding(reading, quantize):
        raise ExportError(f"The clamp {node.name} changes the encoding.")
    clip = ir.node("Clip", [reading.inputs[0], least, most], name=f"{node.name}.clip")
    clip.outputs[0].dtype = ir.DataType.UINT8
    clip.outputs[0].name = f"{node.name}.codes"
    ir.convenience.replace_nodes_and_values(
        graph, node, [node, quantize], [clip], quantize.outputs, clip.outputs
    )


def _bounds(node: ir.Node) -> tuple[float, float]:
    if node.op_type == "Relu":
        return 0.0, float("inf")
    return float(constant(node.inputs[1])), float(constant(node.inputs[2]))


def _code(bound: float, scale: float, zero_point: int) -> int:
    return int(np.clip(np.rint(bound / scale) + zero_point, 0, 255))
