"""Append what artifacts return of the outputs: probabilities, vectors of length 1, or integers.

softmax, sigmoid, normalize    one operator, in float
top5                           TopK of the values, and their softmax
codes                          nothing; the last DequantizeLinear is removed
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from mobiledeploy.errors import ExportError
from mobiledeploy.export.onnx_passes.common import add_constant
from mobiledeploy.utils.top5 import TOP

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mobiledeploy.network import Activation, OutputSpec

_OPERATORS: Mapping[Activation, str] = {
    "softmax": "Softmax",
    "sigmoid": "Sigmoid",
    "normalize": "LpNormalization",
}


class ActivateOutputs(ir.passes.InPlacePass):
    """Put the activation of each output behind it, under the names of its tensors.

    Args:
        outputs: The outputs, in order.
    """

    def __init__(self, outputs: Sequence[OutputSpec]) -> None:
        super().__init__()
        self._outputs = outputs

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        results: list[ir.Value] = []
        for value, output in zip(model.graph.outputs, self._outputs, strict=True):
            results += _activated(model.graph, value, output)
        model.graph.outputs[:] = results
        return ir.passes.PassResult(model, modified=True)


def _activated(graph: ir.Graph, value: ir.Value, output: OutputSpec) -> list[ir.Value]:
    """Return the values that an artifact returns of an output."""
    if output.activation == "none":
        return [value]
    value.name = f"{output.name}_before_{output.activation}"
    if output.activation == "codes":
        return [_codes(value, output)]
    if output.activation == "top5":
        return _largest(graph, value, output)
    axis = {} if output.activation == "sigmoid" else {"axis": output.class_axis}
    operator = _OPERATORS[output.activation]
    return [_append(graph, operator, [value], axis, output.name, value)]


def _append(
    graph: ir.Graph,
    operator: str,
    inputs: Sequence[ir.Value],
    attributes: Mapping[str, int],
    name: str,
    like: ir.Value,
) -> ir.Value:
    """Append an operator of one result, which has the shape and type of another value."""
    node = ir.node(operator, inputs, attributes, name=f"{name}_{operator.lower()}")
    graph.append(node)
    (result,) = node.outputs
    result.name, result.shape, result.type = name, like.shape, like.type
    return result


def _codes(value: ir.Value, output: OutputSpec) -> ir.Value:
    """Return the codes that an output is dequantized from.

    Raises:
        ExportError: it is computed in float.
    """
    node = value.producer()
    codes = node.inputs[0] if node is not None and node.op_type == "DequantizeLinear" else None
    if codes is None:
        raise ExportError(f"The output {output.name} is not an int8 value.")
    codes.name, codes.shape = output.name, value.shape
    codes.type = ir.TensorType(ir.DataType.UINT8)
    return codes


def _largest(graph: ir.Graph, value: ir.Value, output: OutputSpec) -> list[ir.Value]:
    """Return the classes of the largest values, and their probabilities."""
    assert value.shape is not None
    name, (classes_name, probabilities_name) = output.name, output.tensors
    count = min(TOP, output.size)
    shape = ir.Shape([value.shape[0], count])
    how_many = add_constant(graph, f"{name}_count", np.array([count], np.int64))
    node = ir.node("TopK", [value, how_many], {"axis": -1}, num_outputs=2, name=f"{name}_topk")
    graph.append(node)
    largest, classes = node.outputs
    largest.name, classes.name = f"{name}_values", classes_name
    classes.shape, classes.type = shape, ir.TensorType(ir.DataType.INT64)
    all_of_them = _append(graph, "Softmax", [value], {"axis": -1}, f"{name}_softmax", value)
    like = ir.Value(shape=shape, type=value.type)
    chosen = [all_of_them, classes]
    axis = {"axis": 1}
    return [classes, _append(graph, "GatherElements", chosen, axis, probabilities_name, like)]
