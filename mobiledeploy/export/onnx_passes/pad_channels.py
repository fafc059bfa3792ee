"""Pad channel counts to what ONNX Runtime's direct depthwise convolutions accept.

    depthwise   C channels -> the next multiple of 16 (zero weights and biases)

The real channels are unchanged. An added channel has zero weights, so it holds its zero-point all
the way to the convolutions that read it, and those multiply it by zero.

Why: on x86-64 ONNX Runtime has a direct convolution (indirection instead of im2col, requantization
inside the kernel) for depthwise convolutions with a multiple of 16 channels. All others take a path
that is two to three times slower (onnxruntime, mlas/lib/convsym.cpp, MlasConvSymPackWSize). In
MobileNetV3 this concerns 72, 88, 120, 184 and 200 channels. Decision record 0004 has the cost on
ARM64, which needs multiples of 8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from mobiledeploy.export.onnx_passes.common import (
    add_constant,
    constant,
    is_dequantized,
    nodes_of,
    producer,
)
from mobiledeploy.export.onnx_passes.int32_biases import zero_points_of_biases

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEPTHWISE_MULTIPLE = 16
# A channel that holds its zero-point stays so through these, whatever the other channels hold.
_CHANNELWISE = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "Clip", "Mul", "Add", "GlobalAveragePool"}
)


class PadDepthwiseChannels(ir.passes.InPlacePass):
    """Pad the channels of every depthwise convolution to a multiple of 16."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for node in nodes_of(model, "Conv"):
            missing = -_groups(node) % _DEPTHWISE_MULTIPLE
            around = _convolutions_around(node) if _groups(node) > 1 and missing else None
            if around is None:
                continue
            writers, readers = around
            for writer in writers:
                _pad_outputs(model.graph, writer, missing)
            for reader in readers:
                _pad_weight(model.graph, reader, missing, axis=1)
            modified = True
        return ir.passes.PassResult(model, modified)


def _groups(convolution: ir.Node) -> int:
    return convolution.attributes.get_int("group", 1)


def _outputs(convolution: ir.Node) -> int:
    return int(constant(producer(convolution.inputs[1]).inputs[0]).shape[0])


def _can_be_padded(convolution: ir.Node) -> bool:
    """Return whether it is int8 and either dense or depthwise with one filter per channel."""
    return is_dequantized(convolution.inputs[1]) and (
        _groups(convolution) in (1, _outputs(convolution))
    )


def _convolutions_around(depthwise: ir.Node) -> tuple[list[ir.Node], list[ir.Node]] | None:
    """Return the convolutions that write and that read the channels of a depthwise convolution.

    Depthwise convolutions write their own channels. Returns None if the channels reach anything but
    int8 convolutions and channelwise operators, because they cannot be padded there.
    """
    writers: list[ir.Node] = []
    readers: list[ir.Node] = []
    seen: set[ir.Value] = set()
    waiting = [depthwise.outputs[0]]
    while waiting:
        value = waiting.pop()
        if value in seen:
            continue
        seen.add(value)
        writer = value.producer()
        if writer is None or value.is_graph_output():
            return None
        if writer.op_type == "Conv":
            if not _can_be_padded(writer):
                return None
            writers.append(writer)
            waiting += _activations(writer) if _groups(writer) > 1 else ()
        elif writer.op_type in _CHANNELWISE:
            waiting += _activations(writer)
        else:
            return None
        for reader in dict.fromkeys(usage.node for usage in value.uses()):  # in order
            if reader.op_type == "Conv" and not is_dequantized(reader.inputs[1]):
                return None
            if reader.op_type == "Conv" and _groups(reader) == 1:
                readers.append(reader)  # depthwise convolutions are among the writers
            else:
                waiting += reader.outputs
    return writers, readers


def _activations(node: ir.Node) -> Iterator[ir.Value]:
    """Yield the inputs that are activations."""
    operands = node.inputs[: 2 if node.op_type in {"Mul", "Add"} else 1]
    return (value for value in operands if value is not None)


def _pad_outputs(graph: ir.Graph, convolution: ir.Node, missing: int) -> None:
    """Add zero output channels to a convolution."""
    _pad_weight(graph, convolution, missing, axis=0)
    weight = producer(convolution.inputs[1])
    source_scale = constant(producer(convolution.inputs[0]).inputs[1])
    _pad_input(graph, weight, 1, missing, fill=1)
    if len(weight.inputs) > 2:
        _pad_input(graph, weight, 2, missing, fill=0)
    if len(convolution.inputs) > 2 and convolution.inputs[2] is not None:
        bias = producer(convolution.inputs[2])
        _pad_input(graph, bias, 0, missing, fill=0)
        # ONNX Runtime fuses a convolution if its bias has the scale s_x s_w; here s_w is 1.
        _pad_input(graph, bias, 1, missing, fill=source_scale.item())
        length = constant(bias.inputs[0]).size
        bias.replace_input_with(2, zero_points_of_biases(graph, length))
    if _groups(convolution) > 1:
        convolution.attributes["group"] = ir.AttrInt64("group", _groups(convolution) + missing)


def _pad_weight(graph: ir.Graph, convolution: ir.Node, missing: int, axis: int) -> None:
    _pad_input(graph, producer(convolution.inputs[1]), 0, missing, fill=0, axis=axis)


def _pad_input(
    graph: ir.Graph, node: ir.Node, index: int, missing: int, *, fill: float, axis: int = 0
) -> None:
    """Replace a constant by one that is padded at the end of an axis."""
    value = node.inputs[index]
    array = constant(value)
    assert value is not None
    widths = [(0, missing if a == axis else 0) for a in range(array.ndim)]
    padded = np.pad(array, widths, constant_values=fill)
    name = f"{value.name}.{'x'.join(map(str, padded.shape))}"
    node.replace_input_with(index, add_constant(graph, name, padded))
