"""Hard-swish in integers: an integer clamp and an integer multiplication.

    hard-swish(x) = x * hard-sigmoid(x),   hard-sigmoid(x) = min(max(x + 3, 0), 6) / 6

Theorem. Let x = (q - m) s with q in 0..255 and 3 = m s, the encoding that `quantization.encodings`
gives the input of a hard-swish. Let y have scale s_y and zero-point z_y.

1. *Saturation is exact.* x < -3 is encoded as q = 0, x = -3, and hard-swish is 0 at both.
2. *The clamp is exact.* x + 3 = q s, so hard-sigmoid(x) = min(q, 2 m) (s / 6): the same codes with
   scale s / 6 and zero-point 0. The only computation is a minimum of integers.
3. *The product is exact.* n = (q - m) min(q, 2 m) is an integer below 2**16, which float32
   represents exactly; hard-swish(x) = n s**2 / 6.
4. *There is one rounding:* y = s_y round(n f), f = float32(s (s / 6) / s_y). s (which occurs
   twice), s / 6, the product and the quotient each have a relative error of at most 2**-24, so

       |y - hard-swish(x)| <= s_y (1/2 + 6 * 2**-24 * 255) < 0.50010 s_y

   for every y within its range.
5. *All runtimes round to the same code.* s_y is chosen so that no n f is within 1/1000 of half-way
   (or, if there is no such s_y, as far from half-way as possible). XNNPACK's table, computed in
   float, and ONNX Runtime's multiplication then give the same codes.

Tested for every m and every q in both runtimes (tests/quantization/test_encodings_hardswish.py).
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


class IntegerHardSwish(ir.passes.InPlacePass):
    """Replace Dequantize -> HardSwish by a Clip of the codes and a Mul of two dequantizations."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for node in nodes_of(model, "HardSwish"):
            if is_dequantized(node.inputs[0]):
                _replace(model.graph, node)
                modified = True
        return ir.passes.PassResult(model, modified)

    def ensures(self, model: ir.Model) -> None:
        if any(is_dequantized(node.inputs[0]) for node in nodes_of(model, "HardSwish")):
            raise ExportError("A HardSwish is left; it would run in float.")


def _replace(graph: ir.Graph, node: ir.Node) -> None:
    reading = producer(node.inputs[0])
    codes, scale, zero_point = reading.inputs
    scale_of_codes = constant(scale).astype(np.float32)
    zero = int(constant(zero_point))
    if zero != int(np.rint(3 / float(scale_of_codes))):
        raise ExportError(f"The input encoding of {node.name} does not start at -3.")
    new: list[ir.Node] = []
    gate = codes
    if 2 * zero < 255:
        bound = add_constant(graph, f"gate_{2 * zero}", np.array(2 * zero, np.uint8))
        clip = ir.node("Clip", [codes, None, bound], name=f"{node.name}.clip")
        clip.outputs[0].dtype = ir.DataType.UINT8
        new.append(clip)
        gate = clip.outputs[0]
    sixth = add_constant(graph, f"{node.name}.sixth", scale_of_codes / np.float32(6))
    zero_value = add_constant(graph, "zero_point_0", np.array(0, np.uint8))
    gate_reading = ir.node("DequantizeLinear", [gate, sixth, zero_value], name=f"{node.name}.gate")
    product = ir.node("Mul", [node.inputs[0], gate_reading.outputs[0]], name=node.name)
    new += [gate_reading, product]
    for fresh in new:
        fresh.outputs[0].name = f"{fresh.name}.out"
    ir.convenience.replace_nodes_and_values(graph, node, [node], new, node.outputs, product.outputs)
