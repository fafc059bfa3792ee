"""What artifacts return of the outputs, in operators of XNNPACK and, for `top5`, of ExecuTorch.

    softmax      over the last axis; the channels of a map are moved there and back
    normalize    x / sqrt(max(sum(x x), 1e-24)); the sum is a layer with weights of 1
    codes        what the last dequantization reads
    top5         topk of the values, and gather of their softmax, behind the delegate

ExecuTorch's topk leaves the order of equal values open. Those of an int8 network are steps of a
scale s: class i of n loses i s / (n + 1), less than a step, and equal values come in the order of
the classes. float32 holds these ranks apart for up to 32,768 classes.
Invariant: the network in front keeps its integers. All but the codes are float.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, cast

import torch
from torch.fx.graph import CodeGen

from mobiledeploy.errors import ExportError
from mobiledeploy.export.program import codes_of
from mobiledeploy.graph.nodes import outputs_of
from mobiledeploy.utils.quiet import quietly
from mobiledeploy.utils.top5 import TOP

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.export import ExportedProgram
    from torch.fx import GraphModule, Node

    from mobiledeploy.network import OutputSpec

aten = torch.ops.aten
_MOST_RANKS = 32_768
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
            result
            for node, output in zip(outputs_of(module.graph), outputs, strict=True)
            for result in _activated(module, node, output)
        ]
    end.args = (tuple(results) if len(results) > 1 else results[0],)
    module.graph.set_codegen(CodeGen())  # the program's own fixes the number of outputs
    module.recompile()
    assert program.example_inputs is not None
    with quietly():
        return torch.export.export(module, *program.example_inputs)


def _activated(module: GraphModule, x: Node, output: OutputSpec) -> list[Node]:
    """Return the nodes of an output's results.

    Raises:
        ExportError: the codes of an output that is computed in float, or the largest values of too
            many.
    """
    if output.activation == "top5":
        return _largest(module, x, output)
    return [codes_of(x, output) if output.activation == "codes" else _computed(module, x, output)]


def _computed(module: GraphModule, x: Node, output: OutputSpec) -> Node:
    call = module.graph.call_function
    if output.activation == "sigmoid":
        return call(aten.sigmoid.default, (x,))
    if output.activation == "softmax" and output.class_axis == 1:
        return _softmax_of_map(module, x, output.shape)
    if output.activation == "softmax":
        return call(aten.softmax.int, (x, -1))
    if output.activation == "normalize":
        return _normalized(module, x, output)
    return x


def _largest(module: GraphModule, x: Node, output: OutputSpec) -> list[Node]:
    """Return the classes of the largest values, and their probabilities."""
    call = module.graph.call_function
    ranks = call(aten.topk.default, (_ranked(module, x, output), min(TOP, output.size), -1))
    classes = call(operator.getitem, (ranks, 1))
    probabilities = call(aten.softmax.int, (x, -1))
    return [classes, call(aten.gather.default, (probabilities, -1, classes))]


def _ranked(module: GraphModule, x: Node, output: OutputSpec) -> Node:
    """Return values of which no two are equal, in the order of x; x itself if it is not int8."""
    if x.target is not torch.ops.quantized_decomposed.dequantize_per_tensor.default:
        return x
    if output.size > _MOST_RANKS:
        raise ExportError(
            f"A .pte returns the five largest of at most {_MOST_RANKS:,} values; the output"
            f" {output.name} has {output.size:,}.",
            remedy="Export with --format onnx, or pass --output probabilities.",
        )
    name, step = f"{output.name}_ranks", cast("float", x.args[1]) / (output.size + 1)
    ranks = torch.arange(output.size, dtype=torch.float64) * step
    ranks = torch.nn.Parameter(ranks.float()[None], requires_grad=False)
    module.register_parameter(name, ranks)
    return module.graph.call_function(aten.sub.Tensor, (x, module.graph.get_attr(name)))


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
