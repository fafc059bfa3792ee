"""What artifacts return of the outputs, in operators of XNNPACK.

    softmax      over the last axis; the channels of a map are moved there and back
    normalize    x / sqrt(max(sum(x x), 1e-24)); the sum is a layer with weights of 1
    codes        what the last dequantization reads

Invariant: the network in front keeps its integers. All but the codes are float.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mobiledeploy.errors import ExportError
from mobiledeploy.export.program import codes_of
from mobiledeploy.graph.nodes import outputs_of
from mobiledeploy.utils.quiet import quietly

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.export import ExportedProgram
    from torch.fx import GraphModule, Node

    from mobiledeploy.network import OutputSpec

aten = torch.ops.aten
_SMALLEST_SQUARE = 1e-24  # of a length of 1e-12, as in torch.nn.functional.normalize


def activate_outputs(program: ExportedProgram, outputs: Sequence[OutputSpec]) -> ExportedProgram:
    """Return the program with the activations that its outputs should have."""
    if all(output.activation == "none" for output in outputs):
        return program
    exported = program.module(check_guards=False)
    module = torch.fx.GraphModule(exported, exported.graph)
    (end,) = module.graph.find_nodes(op="output")
    with module.graph.inserting_before(end):
        results = [
            _activated(module, node, output)
            for node, output in zip(outputs_of(module.graph), outputs, strict=True)
        ]
    end.args = (tuple(results) if len(results) > 1 else results[0],)
    module.recompile()
    assert program.example_inputs is not None
    with quietly():
        return torch.export.export(module, *program.example_inputs)


def _activated(module: GraphModule, x: Node, output: OutputSpec) -> Node:
    """Return the node of an output's result.

    Raises:
        ExportError: the codes of an output that is computed in float, or the five largest values,
            for which XNNPACK has no operator.
    """
    call = module.graph.call_function
    if output.activation == "top5":
        raise ExportError(
            "A .pte cannot return the five largest values: XNNPACK has no operator for them.",
            remedy="Export with --format onnx, or pass --output probabilities.",
        )
    if output.activation == "codes":
        return codes_of(x, output)
    if output.activation == "sigmoid":
        return call(aten.sigmoid.default, (x,))
    if output.activation == "softmax" and output.class_axis == 1:
        return _softmax_of_map(module, x, output.shape)
    if output.activation == "softmax":
        return call(aten.softmax.int, (x, -1))
    if output.activation == "normalize":
        return _normalized(module, x, output)
    return x


def _softmax_of_map(module: GraphModule, x: Node, shape: Sequence[int]) -> Node:
    """Return the softmax over the channels of a map (1, C, H, W).

    It goes through (H W, C): ExecuTorch may hold images with channels last, and then takes the
    softmax of four axes over another one.
    """
    call = module.graph.call_function
    channels, height, width = shape
    pixels = call(aten.permute.default, (x, [0, 2, 3, 1]))
    rows = call(aten.reshape.default, (pixels, [height * width, channels]))
    result = call(aten.softmax.int, (rows, -1))
    pixels = call(aten.reshape.default, (result, [1, height, width, channels]))
    return call(aten.permute.default, (pixels, [0, 3, 1, 2]))


def _normalized(module: GraphModule, x: Node, output: OutputSpec) -> Node:
    call = module.graph.call_function
    is_map = output.class_axis == 1
    channels = output.shape[0 if is_map else -1]
    name = f"{output.name}_ones"
    ones = torch.ones((1, channels, 1, 1) if is_map else (1, channels))
    module.register_parameter(name, torch.nn.Parameter(ones, requires_grad=False))
    layer = aten.conv2d.default if is_map else aten.linear.default
    squares = call(aten.mul.Tensor, (x, x))
    total = call(layer, (squares, module.graph.get_attr(name)))
    length = call(aten.sqrt.default, (call(aten.clamp.default, (total, _SMALLEST_SQUARE)),))
    return call(aten.div.Tensor, (x, length))
