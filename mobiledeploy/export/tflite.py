"""Export to LiteRT, formerly TensorFlow Lite: a `.tflite` with the network's own integers.

In: a `QuantizedModel` or a `FoldedModel`. Out: the bytes of a `.tflite`: input (1, H, W, C) in
float32, or pixels in uint8, and outputs in float32, with a batch of one.
Invariants: the same network gives the same bytes; with XNNPACK, which LiteRT uses on every CPU, an
int8 network gives the logits of the integer reference.

Every operator becomes LiteRT's own, except for two. XNNPACK computes the int8 hard-swish with 15
bits and errs by up to 0.006 steps: it is written as x times a gate, min(x + 3, 6) / 6, whose
integers are those of x shifted by 3 (`integer_operators.hardswish`). A clamp that LiteRT has no
name for is a maximum and a minimum.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema

from mobiledeploy.artifact.metadata import for_tflite
from mobiledeploy.export.program import codes_of, program_of
from mobiledeploy.export.tflite_activations import add_activation
from mobiledeploy.export.tflite_file import TfliteFile
from mobiledeploy.export.tflite_forms import require_form
from mobiledeploy.export.tflite_moves import MOVES, add_input, add_move, add_padding
from mobiledeploy.export.tflite_nodes import (
    DEQUANTIZE,
    FUSED,
    QUANTIZE,
    WEIGHT,
    convolution_arguments,
    encoding_of,
    fused_clamp,
    is_integer,
    same_padding,
    shape_of,
    source_of,
    window_arguments,
    without_clamp,
)
from mobiledeploy.graph.nodes import clamp_of, outputs_of
from mobiledeploy.network import INPUT_FORMATS, InputFormat, OutputSpec
from mobiledeploy.utils.progress import step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch.export import ExportedProgram
    from torch.fx import GraphModule, Node

    from mobiledeploy.stages import FoldedModel, QuantizedModel

aten = torch.ops.aten

_CLAMPS = (aten.relu.default, aten.relu6.default, aten.hardtanh.default)

_Clamp: TypeAlias = tuple[float, float] | None
_Operator = schema.BuiltinOperator
_ALONE = {
    (0.0, float("inf")): _Operator.RELU,
    (0.0, 6.0): _Operator.RELU6,
    (0.0, 1.0): _Operator.RELU_0_TO_1,
}


def encode_model(model: QuantizedModel | FoldedModel) -> bytes:
    """Return the network as a serialized `.tflite`.

    Raises:
        ExportError: LiteRT has no form of an operator.
    """
    with step("Writing the graph for LiteRT"):
        info = model.info
        return encode_program(program_of(model), for_tflite(model), info.outputs, info.input.format)


def encode_program(
    program: ExportedProgram,
    metadata: Mapping[str, bytes],
    outputs: Sequence[OutputSpec] = (OutputSpec(size=1),),
    input_format: InputFormat = INPUT_FORMATS["float"],
) -> bytes:
    """Return a program as a serialized `.tflite` with named bytes of metadata.

    Args:
        program: The program.
        metadata: Bytes by name.
        outputs: The outputs, in order; their names and activations count.
        input_format: What the file takes. The program quantizes pixels at scale 1.

    Raises:
        ExportError: LiteRT has no form of an operator.
    """
    translator = _Translator(program.module(check_guards=False))
    return translator.translate(metadata, outputs, input_format)


class _Translator:
    """Translates one program, operator by operator.

    Args:
        module: The program. Int8 operators read `dequantize` nodes, and a `quantize` node reads
            them.
    """

    def __init__(self, module: GraphModule) -> None:
        self._module = module
        self._file = TfliteFile()
        self._codes: dict[Node, int] = {}
        self._reals: dict[Node, int] = {}
        self._operators: Mapping[object, Callable[[Node, int, _Clamp], None]] = {
            aten.conv2d.default: self._add_convolution,
            aten.linear.default: self._add_linear,
            aten.add.Tensor: self._add_sum,
            aten.mul.Tensor: self._add_product,
            aten.adaptive_avg_pool2d.default: self._add_mean,
            aten.max_pool2d.default: self._add_max_pool,
            aten.hardswish.default: self._add_hardswish,
            aten.sigmoid.default: self._add_sigmoid,
            **dict.fromkeys(_CLAMPS, self._add_clamp),
            **dict.fromkeys(MOVES, self._add_move),
        }

    def translate(
        self,
        metadata: Mapping[str, bytes],
        outputs: Sequence[OutputSpec],
        input_format: InputFormat,
    ) -> bytes:
        """Return the file (see `encode_program`)."""
        graph = self._module.graph
        (image,) = graph.find_nodes(op="placeholder")
        number, channels_last = add_input(self._file, image, input_format)
        (self._codes if input_format.is_pixels else self._reals)[image] = channels_last
        for node in graph.nodes:
            if node.op == "call_function" and node.target is not WEIGHT:
                if node.target not in (QUANTIZE, DEQUANTIZE):
                    require_form(node)
                self._add(node)
        results: list[int] = []
        for node, output in zip(outputs_of(graph), outputs, strict=True):
            if output.activation == "codes":
                found = [self._codes[codes_of(node, output)]]
            else:
                found = add_activation(self._file, self._real(node), output)
            for result, name in zip(found, output.tensors, strict=True):
                self._file.rename(result, name)
            results += found
        return self._file.serialize([number], results, metadata)

    def _add(self, node: Node) -> None:
        """Add the operators of one node, unless another node adds them."""
        if node.target is DEQUANTIZE:
            self._codes[node] = self._codes[source_of(node)]
        elif node.target is QUANTIZE:
            self._add_quantize(node)
        elif node not in self._reals and not is_integer(without_clamp(node)):
            end = fused_clamp(node) or node
            self._reals[end] = self._file.add_tensor(end.name, shape_of(end), np.float32)
            self._add_operator(node, self._reals[end], None if end is node else clamp_of(end))

    def _add_quantize(self, node: Node) -> None:
        source, scale, zero_point = cast("tuple[Node, float, int]", node.args[:3])
        output = self._file.add_tensor(
            node.name, shape_of(node), np.int8, scale=scale, zero_point=zero_point
        )
        self._codes[node] = output
        operator = without_clamp(source)
        if not is_integer(operator):
            options = schema.QuantizeOptionsT()
            # pixels are codes: from uint8 to int8, only the zero-point shifts
            is_pixels = source.op == "placeholder" and source in self._codes
            given = self._codes[source] if is_pixels else self._real(source)
            self._file.add_operator(_Operator.QUANTIZE, [given], output, options)
        else:
            self._add_operator(operator, output, None if operator is source else clamp_of(source))

    def _real(self, node: Node) -> int:
        """Return the number of a node's float tensor; dequantize its codes where necessary."""
        if node not in self._reals:
            tensor = self._file.add_tensor(node.name, shape_of(node), np.float32)
            options = schema.DequantizeOptionsT()
            self._file.add_operator(
                _Operator.DEQUANTIZE, [self._codes[node]], tensor, options, version=2
            )
            self._reals[node] = tensor
        return self._reals[node]

    def _operand(self, operator: Node, index: int) -> int:
        """Return the number of an operand that is an activation."""
        node = cast("Node", operator.args[index])
        return self._codes[node] if is_integer(operator) else self._real(node)

    def _add_operator(self, node: Node, output: int, clamp: _Clamp = None) -> None:
        """Add one operator that writes `output`, with the clamp behind it."""
        add = self._operators[node.target]
        if clamp in FUSED:
            add(node, output, clamp)
            return
        unclamped = self._file.add_like(output, f"{node.name}.unclamped")
        add(node, unclamped, None)
        self._add_bounds(unclamped, output, clamp)

    def _add_convolution(self, node: Node, output: int, clamp: _Clamp) -> None:
        stride, padding, dilation, groups = convolution_arguments(node)
        weight = self._constant(node.args[1])
        kernel = weight.shape[-2:]
        x, padding_kind = self._padded(node, kernel, stride, padding, dilation)
        depthwise = groups > 1 and weight.shape[1] == 1
        options: Any = schema.DepthwiseConv2DOptionsT() if depthwise else schema.Conv2DOptionsT()
        if depthwise:
            options.depthMultiplier = weight.shape[0] // groups
        options.padding = padding_kind
        options.strideH, options.strideW = stride
        options.dilationHFactor, options.dilationWFactor = dilation
        options.fusedActivationFunction = FUSED[clamp]
        axes, axis = ((1, 2, 3, 0), 3) if depthwise else ((0, 2, 3, 1), 0)
        weights = self._weight_and_bias(node, weight.transpose(axes), axis)
        code = _Operator.DEPTHWISE_CONV_2D if depthwise else _Operator.CONV_2D
        self._file.add_operator(code, [x, *weights], output, options, version=3)

    def _padded(
        self,
        node: Node,
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        *,
        lowest: bool = False,
    ) -> tuple[int, int]:
        """Return a window's input, padded if LiteRT has no name for its padding, and the name.

        "SAME" depends on the size of the image: with a stride of 2 and an even size it pads one
        side only, where PyTorch pads both.
        """
        x, source = self._operand(node, 0), source_of(node)
        if not any(padding):
            return x, schema.Padding.VALID
        by_axis = zip(source.meta["val"].shape[-2:], kernel, stride, dilation, strict=True)
        same = [same_padding(*axis) for axis in by_axis]
        if same == [(amount, amount) for amount in padding]:
            return x, schema.Padding.SAME
        amounts = [[0, 0], [padding[0]] * 2, [padding[1]] * 2, [0, 0]]
        shape = np.array(shape_of(source)) + np.sum(amounts, 1)
        padded = self._like(node, f"{node.name}.padded", shape.tolist())
        value = -np.inf if lowest else 0.0
        add_padding(self._file, node.name, x, padded, amounts, value)
        return padded, schema.Padding.VALID

    def _like(self, operator: Node, name: str, shape: Sequence[int]) -> int:
        """Add a tensor with the datatype and encoding of an operator's first operand."""
        if not is_integer(operator):
            return self._file.add_tensor(name, shape, np.float32)
        scale, zero_point = encoding_of(operator)
        return self._file.add_tensor(name, shape, np.int8, scale=scale, zero_point=zero_point)

    def _add_linear(self, node: Node, output: int, clamp: _Clamp) -> None:
        options = schema.FullyConnectedOptionsT()
        options.fusedActivationFunction = FUSED[clamp]
        weights = self._weight_and_bias(node, self._constant(node.args[1]), 0)
        inputs = [self._operand(node, 0), *weights]
        self._file.add_operator(_Operator.FULLY_CONNECTED, inputs, output, options, version=4)

    def _weight_and_bias(self, node: Node, weight: NDArray[Any], axis: int) -> list[int]:
        """Add a layer's constants.

        Args:
            node: The layer.
            weight: Its weight in LiteRT's layout, int8 codes or float32.
            axis: The axis of the output channels.
        """
        name, weight = node.name, np.ascontiguousarray(weight)
        has_bias = len(node.args) > 2 and node.args[2] is not None
        channels = node.meta["val"].shape[1]
        bias = self._constant(node.args[2]) if has_bias else np.zeros(channels, np.float32)
        if not is_integer(node):
            constants = ((f"{name}.weight", weight), (f"{name}.bias", bias))
            return [self._file.add_constant(*each) for each in constants]
        scales = self._constant(cast("Node", node.args[1]).args[1])
        grid = encoding_of(node)[0] * scales
        codes = np.rint(bias.astype(np.float64) / grid).astype(np.int32)
        return [
            self._file.add_constant(f"{name}.weight", weight, scale=scales, axis=axis),
            self._file.add_constant(f"{name}.bias", codes, scale=grid),
        ]

    def _constant(self, node: Any) -> NDArray[Any]:
        """Return the value of a parameter, or the codes of a quantized weight."""
        name = node.args[0].target if node.target is WEIGHT else node.target
        tensor: torch.Tensor = attrgetter(name)(self._module)
        return tensor.detach().numpy()

    def _add_sum(self, node: Node, output: int, clamp: _Clamp) -> None:
        self._add_binary(_Operator.ADD, schema.AddOptionsT(), node, output, clamp)

    def _add_product(self, node: Node, output: int, clamp: _Clamp) -> None:
        self._add_binary(_Operator.MUL, schema.MulOptionsT(), node, output, clamp)

    def _add_binary(self, code: int, options: Any, node: Node, output: int, clamp: _Clamp) -> None:
        options.fusedActivationFunction = FUSED[clamp]
        inputs = [self._operand(node, 0), self._operand(node, 1)]
        self._file.add_operator(code, inputs, output, options, version=2)

    def _add_mean(self, node: Node, output: int, _clamp: object) -> None:
        axes = self._file.add_constant(f"{node.name}.axes", np.array([1, 2], np.int32))
        options = schema.ReducerOptionsT()
        options.keepDims = True
        inputs = [self._operand(node, 0), axes]
        self._file.add_operator(_Operator.MEAN, inputs, output, options, version=2)

    def _add_max_pool(self, node: Node, output: int, _clamp: object) -> None:
        kernel, stride, padding = window_arguments(node)
        x, padding_kind = self._padded(node, kernel, stride, padding, (1, 1), lowest=True)
        options = schema.Pool2DOptionsT()
        options.padding = padding_kind
        options.filterHeight, options.filterWidth = kernel
        options.strideH, options.strideW = stride
        self._file.add_operator(_Operator.MAX_POOL_2D, [x], output, options, version=2)

    def _add_move(self, node: Node, output: int, _clamp: object) -> None:
        first = node.args[0]
        sources = cast("Sequence[Node]", first if isinstance(first, list | tuple) else [first])
        read = self._codes.__getitem__ if is_integer(node) else self._real
        add_move(self._file, node, [read(source) for source in sources], output)

    def _add_sigmoid(self, node: Node, output: int, _clamp: object) -> None:
        self._file.add_operator(_Operator.LOGISTIC, [self._operand(node, 0)], output, version=2)

    def _add_hardswish(self, node: Node, output: int, _clamp: object) -> None:
        x = self._operand(node, 0)
        if not is_integer(node):
            options = schema.HardSwishOptionsT()
            self._file.add_operator(_Operator.HARD_SWISH, [x], output, options)
            return
        scale, _ = encoding_of(node)
        three = np.array([round(3 / float(scale)) - 128], np.int8)
        shifted, gate = (
            self._file.add_tensor(name, shape_of(node), np.int8, scale=each, zero_point=-128)
            for name, each in (
                (f"{node.name}.shifted", scale),
                (f"{node.name}.gate", scale / np.float32(6)),
            )
        )
        add, product = schema.AddOptionsT(), schema.MulOptionsT()
        add.fusedActivationFunction = schema.ActivationFunctionType.RELU6
        addend = self._file.add_constant(f"{node.name}.three", three, scale=scale, zero_point=-128)
        sixth = self._file.add_constant(f"{node.name}.sixth", np.ones(1, np.int8), scale=1 / 6)
        self._file.add_operator(_Operator.ADD, [x, addend], shifted, add, version=2)
        self._file.add_operator(_Operator.MUL, [shifted, sixth], gate, product, version=2)
        self._file.add_operator(_Operator.MUL, [x, gate], output, product, version=2)

    def _add_clamp(self, node: Node, output: int, _clamp: object) -> None:
        """Add an activation that is not fused into the operator before it."""
        self._add_bounds(self._operand(node, 0), output, clamp_of(node))

    def _add_bounds(self, x: int, output: int, bounds: _Clamp) -> None:
        """Add a clamp of real numbers, or of codes whose encoding is also that of the output."""
        assert bounds is not None
        if bounds in _ALONE:
            self._file.add_operator(_ALONE[bounds], [x], output)
            return
        steps = [
            (code, bound)
            for code, bound in zip((_Operator.MAXIMUM, _Operator.MINIMUM), bounds, strict=True)
            if np.isfinite(bound)
        ]
        for code, bound in steps:
            last = code == steps[-1][0]
            result = output if last else self._file.add_like(output, f"{x}.at_least")
            limit = self._file.add_value_like(output, f"{output}.bound.{code}", bound)
            options = schema.MaximumMinimumOptionsT()
            self._file.add_operator(code, [x, limit], result, options, version=2)
            x = result
