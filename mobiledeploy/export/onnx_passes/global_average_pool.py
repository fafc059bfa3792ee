"""ReduceMean over height and width -> GlobalAveragePool, which ONNX Runtime runs in integers.

Where the pooled tensor has its source's encoding, both are read with scale 1 and the zero-point
of int8's zero. The codes are the same; but the mean is then rounded as a mean of codes, with the
factor 1 / count exactly, which is what XNNPACK does: ties go the same way (see
`quantize.reference.Mean`).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from mobiledeploy.errors import ExportError
from mobiledeploy.export.onnx_passes.qdq import (
    add_constant,
    constant,
    nodes_of,
    producer,
    same_encoding,
    the_user,
)

_INT8_ZERO = 128  # as uint8


class UseGlobalAveragePool(ir.passes.InPlacePass):
    """Replace every mean over the two spatial axes of an NCHW tensor."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for node in nodes_of(model, "ReduceMean"):
            axes = sorted(int(axis) % 4 for axis in constant(node.inputs[1]).ravel())
            if axes != [2, 3] or node.attributes["keepdims"].as_int() != 1:
                raise ExportError(f"The mean {node.name} is not a global average pool.")
            pool = ir.node("GlobalAveragePool", node.inputs[:1], name=node.name)
            ir.convenience.replace_nodes_and_values(
                model.graph, node, [node], [pool], node.outputs, pool.outputs
            )
            modified = True
        return ir.passes.PassResult(model, modified)

    def ensures(self, model: ir.Model) -> None:
        if any(nodes_of(model, "ReduceMean")):
            raise ExportError("A ReduceMean is left, which would run in float.")


class PoolCodes(ir.passes.InPlacePass):
    """Read source and result of a pool as plain codes where they share one encoding."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for pool in nodes_of(model, "GlobalAveragePool"):
            reading, writing = producer(pool.inputs[0]), the_user(pool.outputs[0])
            if not same_encoding(reading, writing):
                continue
            one = add_constant(model.graph, "scale_of_codes", np.array(1, np.float32))
            zero = add_constant(
                model.graph, f"zero_point_{_INT8_ZERO}", np.array(_INT8_ZERO, np.uint8)
            )
            codes = ir.node(
                "DequantizeLinear", [reading.inputs[0], one, zero], name=f"{pool.name}.codes"
            )
            codes.outputs[0].name = f"{pool.name}.codes.out"
            model.graph.insert_before(pool, codes)
            pool.replace_input_with(0, codes.outputs[0])
            writing.replace_input_with(1, one)
            writing.replace_input_with(2, zero)
            modified = True
        return ir.passes.PassResult(model, modified)
