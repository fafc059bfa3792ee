"""Make the batch size symbolic; no operator in these graphs depends on it.

The types and shapes that the exporter inferred are dropped. They are those of another graph, before
the passes, and every client infers its own.
"""

from __future__ import annotations

import onnx_ir as ir

from mobiledeploy.errors import ExportError
from mobiledeploy.export.onnx_passes.common import constant, nodes_of


class SymbolicBatch(ir.passes.InPlacePass):
    """Name the first axis of the input and the output; drop what was inferred in between."""

    def requires(self, model: ir.Model) -> None:
        if any(constant(node.inputs[1]).flat[0] != 0 for node in nodes_of(model, "Reshape")):
            raise ExportError(
                "The graph has a Reshape to a constant shape, which would fix the batch size."
            )

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        ends = [*model.graph.inputs, *model.graph.outputs]
        for value in ends:
            assert value.shape is not None
            value.shape = ir.Shape(["batch", *value.shape[1:]])
        between = [value for node in model.graph for value in node.outputs if value not in ends]
        for value in (*between, *model.graph.initializers.values()):
            value.shape, value.type = None, None
            value.metadata_props.clear()
        return ir.passes.PassResult(model, modified=True)
