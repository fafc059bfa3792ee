"""Export to LiteRT, formerly TensorFlow Lite: a `.tflite` with the network's own integers.

In: a `QuantizedModel` or a `FoldedModel`. Out: the bytes of a `.tflite`: input (1, H, W, C) and
logits in float32, with a batch of one.
Invariants: the same network gives the same bytes; with XNNPACK, which LiteRT uses on every CPU, an
int8 network gives the logits of the integer reference.

Every operator becomes LiteRT's own, except for the int8 hard-swish: XNNPACK computes that one with
15 bits and errs by up to 0.006 steps. It is written as x times a gate, min(x + 3, 6) / 6, whose
integers are those of x shifted by 3 (`integer_reference.hardswish`).
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema

from mobiledeploy.artifact.metadata import for_tflite
from mobiledeploy.errors import ExportError
from mobiledeploy.export.program import program_of
from mobiledeploy.export.tflite_file import TfliteFile
from mobiledeploy.graph.aten_graph import clamp_of
from mobiledeploy.network import INPUT_NAME, OUTPUT_NAME
from mobiledeploy.utils.progress import step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch.fx import GraphModule, Node

    from mobiledeploy.network import FoldedModel, QuantizedModel

aten = torch.ops.aten
quantized = torch.ops.quantized_decomposed

_QUANTIZE = quantized.quantize_per_tensor.default
_DEQUANTIZE = quantized.dequantize_per_tensor.default
_WEIGHT = quantized.dequantize_per_channel.default
_CLAMPS = (aten.relu.default, aten.relu6.default, aten.hardtanh.default)
_WEIGHTED = (aten.conv2d.default, aten.linear.default)

_Clamp: TypeAlias = tuple[float, float] | None
_Operator = schema.BuiltinOperator
_FUSED = {
    None: schema.ActivationFunctionType.NONE,
    (0.0, float("inf")): schema.ActivationFunctionType.RELU,
    (0.0, 6.0): schema.ActivationFunctionType.RELU6,
}
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
        module = program_of(model).module(check_guards=False)
        return _Translator(module).translate(for_tflite(model))


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
            aten.hardswish.default: self._add_hardswish,
            aten.flatten.using_ints: self._add_flatten,
            aten.pad.default: self._add_pad,
            **dict.fromkeys(_CLAMPS, self._add_clamp),
        }

    def translate(self, metadata: Mapping[str, bytes]) -> bytes:
        """Return the file."""
        graph = self._module.graph
        (image,) = graph.find_nodes(op="placeholder")
        (output,) = graph.find_nodes(op="output")
        self._reals[image] = self._file.add_tensor(INPUT_NAME, _shape(image), np.float32)
        for node in graph.nodes:
            if node.op == "call_function" and node.target is not _WEIGHT:
                self._add(node)
        (logits,) = output.args[0]
        if len(_shape(logits)) != 2:
            raise ExportError(
                f"The output has the shape {tuple(logits.meta['val'].shape)}; a .tflite needs"
                " (1, classes).",
                remedy="Export to ONNX or .pte.",
            )
        result = self._real(logits)
        self._file.rename(result, OUTPUT_NAME)
        return self._file.serialize([self._reals[image]], [result], metadata)

    def _add(self, node: Node) -> None:
        """Add the operators of one node, unless another node adds them."""
        if node.target is _DEQUANTIZE:
            self._codes[node] = self._codes[_input(node)]
        elif node.target is _QUANTIZE:
            self._add_quantize(node)
        elif node not in self._reals and not _is_integer(_without_clamp(node)):
            end = _fused_clamp(node) or node
            self._reals[end] = self._file.add_tensor(end.name, _shape(end), np.float32)
            self._add_operator(node, self._reals[end], None if end is node else clamp_of(end))

    def _add_quantize(self, node: Node) -> None:
        source, scale, zero_point = cast("tuple[Node, float, int]", node.args[:3])
        output = self._file.add_tensor(
            node.name, _shape(node), np.int8, scale=scale, zero_point=zero_point
        )
        self._codes[node] = output
        operator = _without_clamp(source)
        if not _is_integer(operator):
            options = schema.QuantizeOptionsT()
            self._file.add_operator(_Operator.QUANTIZE, [self._real(source)], output, options)
        else:
            self._add_operator(operator, output, clamp_of(source))

    def _real(self, node: Node) -> int:
        """Return the number of a node's float tensor; dequantize its codes where necessary."""
        if node not in self._reals:
            tensor = self._file.add_tensor(node.name, _shape(node), np.float32)
            options = schema.DequantizeOptionsT()
            self._file.add_operator(
                _Operator.DEQUANTIZE, [self._codes[node]], tensor, options, version=2
            )
            self._reals[node] = tensor
        return self._reals[node]

    def _operand(self, operator: Node, index: int) -> int:
        """Return the number of an operand that is an activation."""
        node = cast("Node", operator.args[index])
        return self._codes[node] if _is_integer(operator) else self._real(node)

    def _add_operator(self, node: Node, output: int, clamp: _Clamp = None) -> None:
        """Add one operator that writes `output`, with the clamp behind it.

        Raises:
            ExportError: LiteRT has no form of it.
        """
        add = self._operators.get(node.target)
        if add is None or (clamp is not None and clamp not in _FUSED):
            behind = f" with a clamp to {clamp}" if clamp is not None else ""
            raise ExportError(
                f"LiteRT has no form of {node.target}{behind}, at {node.name}.",
                remedy="Export to ONNX or .pte.",
            )
        add(node, output, clamp)

    def _add_convolution(self, node: Node, output: int, clamp: _Clamp) -> None:
        stride, padding, dilation, groups = _convolution_arguments(node)
        weight = self._constant(node.args[1])
        kernel = weight.shape[-2:]
        x, padding_kind = self._padded(node, kernel, stride, padding, dilation)
        depthwise = groups > 1
        if depthwise and weight.shape[1] != 1:
            raise ExportError(
                f"{node.name} has {groups} groups of {weight.shape[1]} channels; LiteRT needs one"
                " group, or one channel in each.",
                remedy="Export to ONNX or .pte.",
            )
        options: Any = schema.DepthwiseConv2DOptionsT() if depthwise else schema.Conv2DOptionsT()
        if depthwise:
            options.depthMultiplier = weight.shape[0] // groups
        options.padding = padding_kind
        options.strideH, options.strideW = stride
        options.dilationHFactor, options.dilationWFactor = dilation
        options.fusedActivationFunction = _FUSED[clamp]
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
    ) -> tuple[int, int]:
        """Return a convolution's input, padded if LiteRT has no name for its padding, and the name.

        "SAME" depends on the size of the image: with a stride of 2 and an even size it pads one
        side only, where PyTorch pads both.
        """
        x, source = self._operand(node, 0), _input(node)
        if not any(padding):
            return x, schema.Padding.VALID
        by_axis = zip(source.meta["val"].shape[-2:], kernel, stride, dilation, strict=True)
        same = [_same_padding(*axis) for axis in by_axis]
        if same == [(amount, amount) for amount in padding]:
            return x, schema.Padding.SAME
        amounts = [[0, 0], [padding[0]] * 2, [padding[1]] * 2, [0, 0]]
        shape = np.array(_shape(source)) + np.sum(amounts, 1)
        padded = self._like(node, f"{node.name}.padded", shape.tolist())
        return self._add_pad_operator(node, x, padded, amounts), schema.Padding.VALID

    def _like(self, operator: Node, name: str, shape: Sequence[int]) -> int:
        """Add a tensor with the datatype and encoding of an operator's first operand."""
        if not _is_integer(operator):
            return self._file.add_tensor(name, shape, np.float32)
        scale, zero_point = _encoding(operator)
        return self._file.add_tensor(name, shape, np.int8, scale=scale, zero_point=zero_point)

    def _add_pad_operator(
        self, node: Node, x: int, output: int, amounts: Sequence[Sequence[int]]
    ) -> int:
        constant = self._file.add_constant(f"{node.name}.amounts", np.array(amounts, np.int32))
        self._file.add_operator(
            _Operator.PAD, [x, constant], output, schema.PadOptionsT(), version=2
        )
        return output

    def _add_pad(self, node: Node, output: int, _clamp: object) -> None:
        left, right, top, bottom = cast("Sequence[int]", node.args[1])
        amounts = [[0, 0], [top, bottom], [left, right], [0, 0]]
        self._add_pad_operator(node, self._operand(node, 0), output, amounts)

    def _add_linear(self, node: Node, output: int, clamp: _Clamp) -> None:
        options = schema.FullyConnectedOptionsT()
        options.fusedActivationFunction = _FUSED[clamp]
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
        name, bias = node.name, self._constant(node.args[2])
        weight = np.ascontiguousarray(weight)
        if not _is_integer(node):
            constants = ((f"{name}.weight", weight), (f"{name}.bias", bias))
            return [self._file.add_constant(*each) for each in constants]
        scales = self._constant(cast("Node", node.args[1]).args[1])
        grid = _encoding(node)[0] * scales
        codes = np.rint(bias.astype(np.float64) / grid).astype(np.int32)
        return [
            self._file.add_constant(f"{name}.weight", weight, scale=scales, axis=axis),
            self._file.add_constant(f"{name}.bias", codes, scale=grid),
        ]

    def _constant(self, node: Any) -> NDArray[Any]:
        """Return the value of a parameter, or the codes of a quantized weight."""
        name = node.args[0].target if node.target is _WEIGHT else node.target
        tensor: torch.Tensor = attrgetter(name)(self._module)
        return tensor.detach().numpy()

    def _add_sum(self, node: Node, output: int, clamp: _Clamp) -> None:
        self._add_binary(_Operator.ADD, schema.AddOptionsT(), node, output, clamp)

    def _add_product(self, node: Node, output: int, clamp: _Clamp) -> None:
        self._add_binary(_Operator.MUL, schema.MulOptionsT(), node, output, clamp)

    def _add_binary(self, code: int, options: Any, node: Node, output: int, clamp: _Clamp) -> None:
        options.fusedActivationFunction = _FUSED[clamp]
        inputs = [self._operand(node, 0), self._operand(node, 1)]
        self._file.add_operator(code, inputs, output, options, version=2)

    def _add_mean(self, node: Node, output: int, _clamp: object) -> None:
        axes = self._file.add_constant(f"{node.name}.axes", np.array([1, 2], np.int32))
        options = schema.ReducerOptionsT()
        options.keepDims = True
        inputs = [self._operand(node, 0), axes]
        self._file.add_operator(_Operator.MEAN, inputs, output, options, version=2)

    def _add_flatten(self, node: Node, output: int, _clamp: object) -> None:
        source = _input(node)
        if any(size != 1 for size in source.meta["val"].shape[2:]):
            raise ExportError(
                f"{node.name} flattens an image of {tuple(source.meta['val'].shape[2:])} pixels,"
                " whose order differs in LiteRT.",
                remedy="Export to ONNX or .pte.",
            )
        shape = np.array(_shape(node), np.int32)
        constant = self._file.add_constant(f"{node.name}.shape", shape)
        options = schema.ReshapeOptionsT()
        options.newShape = shape
        inputs = [self._operand(node, 0), constant]
        self._file.add_operator(_Operator.RESHAPE, inputs, output, options)

    def _add_hardswish(self, node: Node, output: int, _clamp: object) -> None:
        x = self._operand(node, 0)
        if not _is_integer(node):
            options = schema.HardSwishOptionsT()
            self._file.add_operator(_Operator.HARD_SWISH, [x], output, options)
            return
        scale, _ = _encoding(node)
        three = np.array([round(3 / float(scale)) - 128], np.int8)
        shifted, gate = (
            self._file.add_tensor(name, _shape(node), np.int8, scale=each, zero_point=-128)
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
        """Add a float activation that is not fused into the operator before it."""
        bounds = clamp_of(node)
        if bounds is None or bounds not in _ALONE:
            raise ExportError(
                f"LiteRT has no form of a clamp to {bounds}, at {node.name}.",
                remedy="Export to ONNX or .pte.",
            )
        self._file.add_operator(_ALONE[bounds], [self._operand(node, 0)], output)


def _shape(node: Node) -> tuple[int, ...]:
    """Return the shape of a node's value in LiteRT, where the channels of images come last."""
    shape = tuple(node.meta["val"].shape)
    return (shape[0], *shape[2:], shape[1]) if len(shape) == 4 else shape


def _without_clamp(node: Node) -> Node:
    """Return the operator in front of a ReLU-like activation; any other node itself."""
    return _input(node) if clamp_of(node) is not None else node


def _is_integer(operator: Node) -> bool:
    """Return whether an operator reads codes and its result is rounded to codes."""
    if operator.op != "call_function" or operator.target in (_QUANTIZE, _DEQUANTIZE):
        return False
    if operator.target in _WEIGHTED and cast("Node", operator.args[1]).target is not _WEIGHT:
        return False
    end = _only_user(operator)
    if end is not None and clamp_of(end) is not None:
        end = _only_user(end)
    reads_codes = _input(operator).target is _DEQUANTIZE
    return reads_codes and end is not None and end.target is _QUANTIZE


def _fused_clamp(operator: Node) -> Node | None:
    """Return the float activation that LiteRT computes within an operator; None without one."""
    fuses = operator.target in (*_WEIGHTED, aten.add.Tensor, aten.mul.Tensor)
    user = _only_user(operator)
    bounds = clamp_of(user) if user is not None else None
    return user if fuses and bounds is not None and bounds in _FUSED else None


def _only_user(node: Node) -> Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _input(node: Node) -> Node:
    """Return an operator's first operand."""
    return cast("Node", node.args[0])


def _encoding(operator: Node) -> tuple[np.float32, int]:
    """Return scale and zero-point of the codes that an int8 operator reads first."""
    scale, zero_point = cast("tuple[float, int]", _input(operator).args[1:3])
    return np.float32(scale), zero_point


def _convolution_arguments(node: Node) -> tuple[Any, Any, Any, int]:
    """Return stride, padding, dilation and groups of a convolution."""
    defaults: list[Any] = [[1, 1], [0, 0], [1, 1], 1]
    given = list(node.args[3:])
    stride, padding, dilation, groups = given + defaults[len(given) :]
    return stride, padding, dilation, groups


def _same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Return what "SAME" adds before and behind one axis."""
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2
