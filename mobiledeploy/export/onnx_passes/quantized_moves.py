"""Move codes instead of numbers, for any batch size.

    Dequantize -> Concat, Slice, Transpose, Reshape, Resize -> Quantize    all with one encoding

becomes the same operator on codes. Moving bytes needs no arithmetic, and every runtime has these
operators for bytes. A padding adds the code of zero. A Reshape and a Resize, also of a float graph,
lose the batch size that the exporter wrote into their shapes.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from mobiledeploy.export.onnx_passes.common import (
    add_constant,
    constant,
    is_dequantized,
    nodes_of,
    only_user,
    producer,
    same_encoding,
)

_MOVES = ("Concat", "Slice", "Transpose", "Reshape", "Resize")


class QuantizedMoves(ir.passes.InPlacePass):
    """Replace every operator that only moves values by the same one on codes."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for node in nodes_of(model, *_MOVES):
            operands = _operands(node)
            if _flattens(node) or not all(is_dequantized(value) for value in operands):
                continue
            readings = [producer(value) for value in operands]
            writing = only_user(node.outputs[0])
            if writing.op_type == "QuantizeLinear" and all(
                same_encoding(reading, writing) for reading in readings
            ):
                _move(model.graph, node, readings, writing)
                modified = True
        return ir.passes.PassResult(model, modified)


class AnyBatchShapes(ir.passes.InPlacePass):
    """Write shapes without the batch size: a 0 copies the axis, and a Resize takes factors."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for node in nodes_of(model, "Reshape", "Resize"):
            if node.op_type == "Reshape" and not _flattens(node):
                shape = [0, *constant(node.inputs[1])[1:].tolist()]
                name = f"shape_{'x'.join(map(str, shape))}"
                array = np.array(shape, np.int64)
                node.replace_input_with(1, add_constant(model.graph, name, array))
                node.attributes.pop("allowzero", None)
                modified = True
            elif node.op_type == "Resize":
                modified |= _resize_by_factors(model.graph, node)
        return ir.passes.PassResult(model, modified)


def _operands(node: ir.Node) -> list[ir.Value | None]:
    """Return the inputs that are activations."""
    return list(node.inputs) if node.op_type == "Concat" else [node.inputs[0]]


def _flattens(node: ir.Node) -> bool:
    """Return whether a node is a Reshape to (1, values), which `QuantizedFlatten` replaces."""
    return node.op_type == "Reshape" and constant(node.inputs[1]).size == 2


def _move(graph: ir.Graph, node: ir.Node, readings: list[ir.Node], writing: ir.Node) -> None:
    codes = [reading.inputs[0] for reading in readings]
    inputs = [*codes, *node.inputs[len(codes) :]]
    moved = ir.node(node.op_type, inputs, attributes=node.attributes, name=node.name)
    moved.outputs[0].dtype = ir.DataType.UINT8
    moved.outputs[0].name = f"{node.name}.codes"
    ir.convenience.replace_nodes_and_values(
        graph, writing, [node, writing], [moved], writing.outputs, moved.outputs
    )


def _resize_by_factors(graph: ir.Graph, node: ir.Node) -> bool:
    """Replace the size of a nearest upsampling by its factors; return whether there was one."""
    if len(node.inputs) < 4 or node.inputs[3] is None or node.inputs[0] is None:
        return False
    before, after = node.inputs[0].shape, constant(node.inputs[3])
    assert before is not None, node
    sides = zip(after.tolist()[2:], before[2:], strict=True)
    factors = [1.0, 1.0, *(size / old for size, old in sides if isinstance(old, int))]
    name = f"factors_{'x'.join(f'{factor:g}' for factor in factors)}"
    scales = add_constant(graph, name, np.array(factors, np.float32))
    resized = ir.node(
        "Resize",
        [node.inputs[0], None, scales],
        attributes=node.attributes,
        name=node.name,
    )
    resized.outputs[0].name = f"{node.name}.resized"
    if node.outputs[0].dtype is not None:
        resized.outputs[0].dtype = node.outputs[0].dtype
    ir.convenience.replace_nodes_and_values(
        graph, node, [node], [resized], node.outputs, resized.outputs
    )
    return True
