"""Declare the lowest opset in which every operator of the graph means the same.

A runtime refuses a file whose opset is newer than itself, even if it has every operator. An
operator keeps its meaning from the version that defined it (`since_version`) to the next
definition. So a graph may declare any opset in between, and old runtimes load it:

    Conv since 11, Clip since 13, Add since 14, QuantizeLinear since 13 (19 is the next): opset 14
"""

from __future__ import annotations

import onnx_ir as ir
from onnx import defs, helper

from mobiledeploy.errors import ExportError

_LOWEST = 14  # of mobiledeploy's own networks in int8: Add since 14
_ADDED_INPUTS = {("Pad", 13, 18): 3}
"""Definitions that only add inputs: (operator, from, to) to the number of inputs before."""


class LowestOpset(ir.passes.InPlacePass):
    """Lower the opset and the IR version as far as the operators allow."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        foreign = [node for node in model.graph.all_nodes() if node.domain]
        if foreign:
            raise ExportError(f"{foreign[0].name} is not an operator of ONNX's own domain.")
        exported = model.opset_imports[""]
        model.opset_imports[""] = next(
            (
                opset
                for opset in range(_LOWEST, exported)
                if all(means_the_same(node, opset, exported) for node in model.graph.all_nodes())
            ),
            exported,
        )
        model.ir_version = helper.find_min_ir_version_for(
            [helper.make_opsetid(*item) for item in model.opset_imports.items()]
        )
        return ir.passes.PassResult(model, modified=True)


def means_the_same(node: ir.Node, one: int, other: int) -> bool:
    """Return whether a node of ONNX's own operators means the same in two opsets."""
    old, new = sorted((one, other))
    try:
        before, after = (defs.get_schema(node.op_type, o).since_version for o in (old, new))
    except defs.SchemaError:  # the older opset does not have it
        return False
    if before == after:
        return True
    inputs = _ADDED_INPUTS.get((node.op_type, before, after))
    return inputs is not None and len(node.inputs) <= inputs
