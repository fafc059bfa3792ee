"""Replace ReduceMean over height and width by GlobalAveragePool, which has an integer kernel."""

from __future__ import annotations

import onnx_ir as ir

from mobiledeploy.errors import ExportError
from mobiledeploy.export.onnx_passes.common import constant, nodes_of


class UseGlobalAveragePool(ir.passes.InPlacePass):
    """Replace every mean over the two spatial axes of an NCHW tensor by a pooling."""

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
            raise ExportError("A ReduceMean is left; it would run in float.")
