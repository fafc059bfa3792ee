"""Channel counts that ONNX Runtime's direct integer convolutions accept.

    stem        3 input channels -> 4 (a plane of zeros, met by weights of zero)
    depthwise   C channels -> the next multiple of 16 (weights and biases of zero)

Nothing that is computed changes: a channel whose weights are zero holds its zero-point from the
convolution that makes it to the convolutions that read it, and these multiply it by zero.

Why: on x86-64 ONNX Runtime convolves directly (indirection instead of im2col, requantization within
the kernel) where a dense convolution has a multiple of 4 input channels and a depthwise one a
multiple of 16; everything else takes a path that is two to three times as slow (onnxruntime,
mlas/lib/convsym.cpp, MlasConvSymPackWSize). Of MobileNetV3's depthwise convolutions those with 72,
88, 120, 184 and 200 channels are such. What it costs where it gains nothing (ARM64 asks for 8) is
in decision record 0004.
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

if TYPE_CHECKING:
    from collections.abc import Iterator

_DENSE_MULTIPLE = 4
_DEPTHWISE_MULTIPLE = 16
# They give a channel of zeros a channel of zeros, whatever its neighbours hold.
_CHANNELWISE = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "Clip", "Mul", "Add", "GlobalAveragePool"}
)


class PadStemChannels(ir.passes.InPlacePass):
    """Pad the image's codes to a multiple of 4 channels, for the convolutions that read them."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        (source,) = model.graph.inputs
        reading_image = [usage.node for usage in source.uses()]
        if any(node.op_type != "QuantizeLinear" for node in reading_image):
            return ir.passes.PassResult(model, modified=False)  # the stem computes in float
        (quantize,) = reading_image
        codes = quantize.outputs[0]
        channels = source.shape[1] if source.shape is not None else None
        assert isinstance(channels, int), source
        missing = -channels % _DENSE_MULTIPLE
        readings = [usage.node for usage in codes.uses()]
        readers = [usage.node for reading in readings for usage in reading.outputs[0].uses()]
        if not missing or any(reader.op_type != "Conv" for reader in readers):
            return ir.passes.PassResult(model, modified=False)
        pads = add_constant(model.graph, "stem.pads", np.array([0, 0, 0, 0, 0, missing, 0, 0]))
        pad = ir.node("Pad", [codes, pads, quantize.inputs[2]], name="stem.pad")
        pad.outputs[0].name = "stem.padded"
        pad.outputs[0].dtype = ir.DataType.UINT8
        for reading in readings:
            reading.replace_input_with(0, pad.outputs[0])
        model.graph.insert_after(quantize, pad)
        for reader in readers:
            _pad_weight(model.graph, reader, missing, axis=1)
        return ir.passes.PassResult(model, modified=True)


class PadDepthwiseChannels(ir.passes.InPlacePass):
    """Add channels of zeros around every depthwise convolution that lacks them."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for node in nodes_of(model, "Conv"):
            missing = -_groups(node) % _DEPTHWISE_MULTIPLE
            around = _around(node) if _groups(node) > 1 and missing else None
            if around is None:
                continue
            makers, readers = around
            for maker in makers:
                _pad_outputs(model.graph, maker, missing)
            for reader in readers:
                _pad_weight(model.graph, reader, missing, axis=1)
            modified = True
        return ir.passes.PassResult(model, modified)


def _groups(convolution: ir.Node) -> int:
    return convolution.attributes.get_int("group", 1)


def _outputs(convolution: ir.Node) -> int:
    return int(constant(producer(convolution.inputs[1]).inputs[0]).shape[0])


def _can_be_padded(convolution: ir.Node) -> bool:
    """Return whether it is int8 and has one filter per channel, or all channels in one group."""
    return is_dequantized(convolution.inputs[1]) and (
        _groups(convolution) in (1, _outputs(convolution))
    )


def _around(depthwise: ir.Node) -> tuple[list[ir.Node], list[ir.Node]] | None:
    """Return the convolutions that make and that read the channels of a depthwise convolution.

    Depthwise ones make their own. None where the channels reach anything else than convolutions in
    int8 and channelwise operators: there they cannot be padded.
    """
    makers: list[ir.Node] = []
    readers: list[ir.Node] = []
    seen: set[ir.Value] = set()
    waiting = [depthwise.outputs[0]]
    while waiting:
        value = waiting.pop()
        if value in seen:
            continue
        seen.add(value)
        maker = value.producer()
        if maker is None or value.is_graph_output():
            return None
        if maker.op_type == "Conv":
            if not _can_be_padded(maker):
                return None
            makers.append(maker)
            waiting += _activations(maker) if _groups(maker) > 1 else ()
        elif maker.op_type in _CHANNELWISE:
            waiting += _activations(maker)
        else:
            return None
        for reader in {usage.node for usage in value.uses()}:
            if reader.op_type == "Conv" and not is_dequantized(reader.inputs[1]):
                return None
            if reader.op_type == "Conv" and _groups(reader) == 1:
                readers.append(reader)  # a depthwise one is a maker of what it writes
            else:
                waiting += reader.outputs
    return makers, readers


def _activations(node: ir.Node) -> Iterator[ir.Value]:
    """Yield the inputs that are computed from the image."""
    operands = node.inputs[: 2 if node.op_type in {"Mul", "Add"} else 1]
    return (value for value in operands if value is not None)


def _pad_outputs(graph: ir.Graph, convolution: ir.Node, missing: int) -> None:
    """Give a convolution output channels of zeros."""
    _pad_weight(graph, convolution, missing, axis=0)
    weight = producer(convolution.inputs[1])
    source_scale = constant(producer(convolution.inputs[0]).inputs[1])
    _pad_input(graph, weight, 1, missing, fill=1)
    if len(weight.inputs) > 2:
        _pad_input(graph, weight, 2, missing, fill=0)
    if len(convolution.inputs) > 2 and convolution.inputs[2] is not None:
        bias = producer(convolution.inputs[2])
        _pad_input(graph, bias, 0, missing, fill=0)
        # ONNX Runtime fuses where a bias has the scale s_x s_w: here s_w is 1
        _pad_input(graph, bias, 1, missing, fill=source_scale.item())
    if _groups(convolution) > 1:
        convolution.attributes["group"] = ir.AttrInt64("group", _groups(convolution) + missing)


def _pad_weight(graph: ir.Graph, convolution: ir.Node, missing: int, axis: int) -> None:
    _pad_input(graph, producer(convolution.inputs[1]), 0, missing, fill=0, axis=axis)


def _pad_input(
    graph: ir.Graph, node: ir.Node, index: int, missing: int, *, fill: float, axis: int = 0
) -> None:
    """Replace a constant by one that is longer along an axis."""
    value = node.inputs[index]
    array = constant(value)
    assert value is not None
    widths = [(0, missing if a == axis else 0) for a in range(array.ndim)]
    padded = np.pad(array, widths, constant_values=fill)
    name = f"{value.name}.{'x'.join(map(str, padded.shape))}"
    node.replace_input_with(index, add_constant(graph, name, padded))
