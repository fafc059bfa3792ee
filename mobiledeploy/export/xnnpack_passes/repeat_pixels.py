"""Write nearest upsampling in operators of ExecuTorch's XNNPACK backend, which does not have it.

    codes: (1, C, H, W) -> (C H W, 1) -> (C H W, f) -> (C H, 1, f W) -> (C H, f, f W)
           -> (1, C, f H, f W)
    float: a depthwise transposed convolution of weight 1 and stride f

Both copy values. The arrows are reshapes, and concatenations of a tensor with itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from mobiledeploy.graph.canonical_moves import NEAREST
from mobiledeploy.graph.rewriting import call_before, calls, constant_before, replace, shape_of

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import GraphModule, Node

aten = torch.ops.aten
quantized = torch.ops.quantized_decomposed

_QUANTIZE = quantized.quantize_per_tensor.default
_DEQUANTIZE = quantized.dequantize_per_tensor.default


def repeat_pixels(program: ExportedProgram) -> ExportedProgram:
    """Return a program without nearest upsampling; the same one if it has none."""
    if not calls(program.graph_module, (NEAREST,)):
        return program
    unlifted = program.module(check_guards=False)
    module = torch.fx.GraphModule(unlifted, unlifted.graph)
    for node in calls(module, (NEAREST,)):
        source = cast("Node", node.args[0])
        factors = [int(factor) for factor in cast("list[float]", node.args[2])]
        if source.target is _DEQUANTIZE:
            _repeat_codes(module, node, source, *factors)
        else:
            _repeat_numbers(module, node, source, factors)
    module.graph.eliminate_dead_code()
    module.recompile()
    assert program.example_inputs is not None
    return torch.export.export(module, *program.example_inputs)


def _repeat_numbers(module: GraphModule, node: Node, source: Node, factors: list[int]) -> None:
    """Replace an upsampling of real numbers."""
    channels = shape_of(source)[1]
    weight = constant_before(module, node, "weight", torch.ones(channels, 1, *factors))
    node.target = aten.conv_transpose2d.input
    node.args = (source, weight, None, factors, [0, 0], [0, 0], channels)


def _repeat_codes(module: GraphModule, node: Node, source: Node, rows: int, columns: int) -> None:
    """Replace an upsampling of codes."""
    _, channels, height, width = shape_of(source)
    encoding = source.args[1:]
    codes = cast("Node", source.args[0])

    def read() -> Node:
        return call_before(module, node, _DEQUANTIZE, codes, *encoding)

    steps = (
        ([channels * height * width, 1], columns),
        ([channels * height, 1, width * columns], rows),
    )
    for shape, count in steps:
        value = call_before(module, node, aten.reshape.default, read(), shape)
        codes = call_before(module, node, _QUANTIZE, value, *encoding)
        for factor in _small_factors(count):  # XNNPACK joins up to five tensors, not one twice
            value = call_before(module, node, aten.cat.default, [read() for _ in range(factor)], 1)
            codes = call_before(module, node, _QUANTIZE, value, *encoding)
    replace(module, node, call_before(module, node, aten.reshape.default, read(), shape_of(node)))


def _small_factors(count: int) -> list[int]:
    """Return factors of up to five whose product is a count; a larger prime stays as it is."""
    factors = []
    for factor in (5, 4, 3, 2):
        while count % factor == 0:
            factors.append(factor)
            count //= factor
    return [*factors, count] if count > 1 else factors
