"""Name nodes and constants after the network's layers.

    node_conv2d_7 reads _frozen_param7, val_14     as exported
    features.3.conv.1.0 reads features.3.conv.1.0.weight and features.3.conv.1.0.weight.scale

`NameLayers` reads the layer from the exporter's metadata, so it is the first pass. `NameConstants`
follows the passes that replace constants.

It also gives every layer constants of its own, where the exporter stores equal ones once; only
biases of one length share their zero-point, which is zero. Why: on x86 without VNNI the uint8 x
int8 kernels saturate at 16 bits, and ONNX Runtime has an option to use uint8 weights instead
(`session.x64quantprecision`). It then renames the zero-point of each weight, and refuses a graph in
which two weights share one ("Attempt to replace the existing tensor").
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import onnx_ir as ir

from mobiledeploy.errors import ExportError
from mobiledeploy.export.onnx_passes.common import constant, nodes_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_LAYERS = ("Conv", "Gemm")
_SCOPES = "pkg.torch.onnx.name_scopes"
_ROLES = {1: "weight", 2: "bias"}
_OWN_PARTS = {1: 3, 2: 2}
_PARTS = {0: "", 1: ".scale", 2: ".zero_point"}


class NameLayers(ir.passes.InPlacePass):
    """Give every convolution and linear layer the name of its module."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        taken = {node.name for node in model.graph}
        for node in nodes_of(model, *_LAYERS):
            scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
            layer = scopes[-2] if len(scopes) > 1 else ""  # the last one is the operator
            if layer and layer not in taken:
                node.name = layer
                taken.add(layer)
        return ir.passes.PassResult(model, modified=True)


class NameConstants(ir.passes.InPlacePass):
    """Give every layer its own weight and bias, with names such as ``features.0.0.weight``."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        named: list[ir.Value] = []
        for node in nodes_of(model, *_LAYERS):
            for index, role in _ROLES.items():
                named += _named(node, index, f"{node.name}.{role}")
        graph = model.graph
        for name in [name for name, value in graph.initializers.items() if not value.uses()]:
            del graph.initializers[name]
        for value in named:
            if value.name in graph.initializers:
                raise ExportError(f"Two constants are named {value.name}.")
            graph.register_initializer(value)
        return ir.passes.PassResult(model, modified=True)

    def ensures(self, model: ir.Model) -> None:
        for node in nodes_of(model, *_LAYERS):
            for index in range(1, len(node.inputs)):
                for reader, position in _constants(node, index):
                    value = reader.inputs[position]
                    if value is not None and len(value.uses()) > 1:
                        raise ExportError(f"Layers share the constant {value.name}.")


def _named(layer: ir.Node, index: int, name: str) -> Iterator[ir.Value]:
    """Yield new constants that replace those of one operand; name its DequantizeLinear."""
    for reader, position in _constants(layer, index):
        value = reader.inputs[position]
        assert value is not None
        full = name if reader is layer else name + _PARTS[position]
        new = ir.val(full, const_value=ir.tensor(constant(value), name=full))
        reader.replace_input_with(position, new)
        yield new
        if reader is not layer:
            reader.name = f"{name}.dequantize"
            reader.outputs[0].name = f"{name}.dequantized"


def _constants(layer: ir.Node, index: int) -> Iterator[tuple[ir.Node, int]]:
    """Yield (node, position) of each constant behind an operand of a layer."""
    operand = layer.inputs[index] if index < len(layer.inputs) else None
    if operand is None:
        return
    source = operand.producer()
    if operand.const_value is not None:
        yield layer, index
    elif source is not None and source.op_type == "DequantizeLinear":
        count = min(len(source.inputs), _OWN_PARTS[index])
        yield from ((source, position) for position in range(count))
