"""The integer reference: what the int8 network computes, by definition.

Input: a `QuantizedModel` and images. Output: logits, and the int8 codes of every layer.
Maths: every value is an integer tensor times a scale. An operator combines the integers exactly,
and only `quantize` rounds:

    q = saturate(round_half_even(float32(n) * float32(s / s_y)) + z_y)

which is what the kernels of XNNPACK and ONNX Runtime do with their int32 accumulators, on x86-64
and on ARM64.
Sources: Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference" (2018), section 2, for the scheme; the kernels of the two
runtimes for the order of the roundings.
Invariant: a runtime is correct if its logits equal these bit for bit. PyTorch's eager run of the
graph is no reference, because it rounds float convolutions. Layers that are kept in float are
computed in float64 and rounded to float32 where they are quantized or leave the network; for such a
network no runtime is held to every bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
import torchao.quantization.pt2e.quantize_pt2e  # noqa: F401 - registers quantized_decomposed
from torch.fx.node import map_aggregate
from torch.nn import functional as F

from mobiledeploy.data.pixels import folded_inputs
from mobiledeploy.errors import ExportError
from mobiledeploy.graph.nodes import clamp_of, module_of, outputs_of
from mobiledeploy.network import INPUT_NAME
from mobiledeploy.utils.outputs import tensors_of
from mobiledeploy.utils.threads import channels_last

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray
    from torch.fx import Graph, Node

    from mobiledeploy.stages import QuantizedModel

aten = torch.ops.aten
quantized = torch.ops.quantized_decomposed

_QUANTIZE = quantized.quantize_per_tensor.default

_LARGEST_CODE = 255  # of |q - zero_point|
_EXACT_IN_FLOAT32 = 2.0**24  # integers up to it


@dataclass(frozen=True, slots=True)
class Scaled:
    """An integer tensor with a scale: real = values * scale.

    Attributes:
        values: Integers, held exactly in float32 or float64.
        scale: float32, a scalar, or one per channel in a shape that broadcasts over `values`.
    """

    values: torch.Tensor
    scale: torch.Tensor

    @property
    def real(self) -> torch.Tensor:
        """Return the real numbers, in float32."""
        return self.values.float() * self.scale


@dataclass(frozen=True, slots=True)
class Rounding:
    """What one `quantize` node rounded.

    Attributes:
        name: Name of the node.
        value: The integers before rounding; real numbers for the network's input and behind layers
            in float.
        result: The rounded codes, as q - zero_point.
        zero_point: Zero-point of the codes.
    """

    name: str
    value: Scaled | torch.Tensor
    result: Scaled
    zero_point: int


@dataclass(frozen=True, slots=True)
class Codes:
    """The quantized output of one layer: real = (codes - zero_point) * scale.

    Attributes:
        codes: int8, (N, ...).
        scale: Scale of the codes.
        zero_point: Zero-point of the codes.
        half_way: float32, shaped like `codes`: distance of the unrounded number from the nearest
            rounding tie, in steps. A runtime that adds in float can differ only where it is near 0.
    """

    codes: NDArray[np.int8]
    scale: float
    zero_point: int
    half_way: NDArray[np.float32]

    @property
    def real(self) -> NDArray[np.float32]:
        """Return the real numbers."""
        steps = self.codes.astype(np.float32) - np.float32(self.zero_point)
        return steps * np.float32(self.scale)


class LayerOperator(NamedTuple):
    """The operator whose result a `quantize` node rounds.

    Attributes:
        name: Name of the operator's node.
        module: The module that it was traced in; "" for the input.
    """

    name: str
    module: str

    @property
    def title(self) -> str:
        """Return module and operator, for example "classifier.1 linear"."""
        return f"{self.module} {self.name}".strip()


class IntegerReference:
    """Runs a `QuantizedModel` by its definition; a `Runner` like any runtime.

    Accepts batches of any size, from several threads at a time.

    Attributes:
        logit_step: Scale of the logits; None if they are computed in float, or if there are several
            outputs.
        exact: Whether every layer is int8, so that a runtime can be held to every bit.
        operators: The operator that each `quantize` node rounds, by the name of that node.
    """

    name = "integer reference"

    def __init__(self, model: QuantizedModel) -> None:
        self._module = model.program.module(check_guards=False)
        self.operators = _operators(self._module.graph)
        self._names = [output.name for output in model.info.outputs]
        steps = [_step_of(node) for node in outputs_of(model.program.graph)]
        self.logit_step = steps[0] if len(steps) == 1 else None
        self.exact = not model.recipe.float_layers

    def run(
        self,
        inputs: Mapping[str, NDArray[Any]],
        on_rounding: Callable[[Rounding], object] | None = None,
    ) -> dict[str, NDArray[np.float32]]:
        """Return the outputs by name for {"input": (N, C, H, W), or pixels (N, H, W, C)}.

        Args:
            inputs: The images.
            on_rounding: Called with what every `quantize` node rounded, in topological order.
                Tensors that it does not keep are freed at once.
        """
        planes = channels_last(folded_inputs(inputs[INPUT_NAME]))
        interpreter = _Interpreter(self._module)
        interpreter.on_rounding = on_rounding
        with torch.no_grad():
            result: object = interpreter.run(planes)
        values = result if isinstance(result, list | tuple) else (result,)
        arrays = (_real(value).float().contiguous().numpy() for value in values)
        return dict(zip(self._names, arrays, strict=True))

    def run_in_float(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """Return the logits of PyTorch, which computes in float between quantize and dequantize.

        Clients that do not fuse these operators compute like this.
        """
        planes = channels_last(folded_inputs(inputs[INPUT_NAME]))
        with torch.no_grad():
            # an exported program itself insists on the batch that it was traced with
            result = torch.fx.Interpreter(self._module).run(planes)
        arrays = (tensor.contiguous().numpy() for tensor in tensors_of(result))
        return dict(zip(self._names, arrays, strict=True))

    def layers(self, images: NDArray[Any]) -> dict[str, Codes]:
        """Return the output of every `quantize` node, in topological order; images as in `run`."""
        layers: dict[str, Codes] = {}

        def keep(rounding: Rounding) -> None:
            layers[rounding.name] = _as_codes(rounding)

        self.run({INPUT_NAME: images}, keep)
        return layers

    def roundings(self, images: NDArray[Any]) -> list[Rounding]:
        """Return what every `quantize` node rounded, in topological order; images as in `run`."""
        roundings: list[Rounding] = []
        self.run({INPUT_NAME: images}, roundings.append)
        return roundings


def _step_of(output: Node) -> float | None:
    """Return the scale of an output's codes; None if it is computed in float."""
    in_codes = output.target is quantized.dequantize_per_tensor.default
    return float(cast("float", output.args[1])) if in_codes else None


def _operators(graph: Graph) -> dict[str, LayerOperator]:
    """Return the operator that each `quantize` node rounds, by the name of that node."""
    operators = {}
    for node in graph.find_nodes(op="call_function", target=_QUANTIZE):
        source = node.args[0]
        if clamp_of(source) is not None:
            source = source.args[0]
        operators[node.name] = LayerOperator(source.name, module_of(source))
    return operators


class _Interpreter(torch.fx.Interpreter):
    """Runs the graph's operators in integers.

    Attributes:
        on_rounding: Called with what every `quantize` node rounded, if it is not None.
    """

    on_rounding: Callable[[Rounding], object] | None = None

    def run_node(self, n: Node) -> object:
        result = super().run_node(n)
        if self.on_rounding is not None and n.target is _QUANTIZE:
            (value, _, zero_point, *_), _ = self.fetch_args_kwargs_from_env(n)
            self.on_rounding(Rounding(n.name, value, result, int(zero_point)))
        return result

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        if target not in _INTEGER_OPS:
            raise ExportError(f"The integer reference does not define the operator {target}.")
        if _is_float(target, args):
            real = cast("Any", lambda value: _real(value) if _is_value(value) else value)
            return target(*map_aggregate(args, real), **kwargs)
        return _INTEGER_OPS[target](*args, **kwargs)


def _is_float(target: object, args: tuple[Any, ...]) -> bool:
    """Return whether an operator computes in float.

    A layer does if its weight is float, any other operator if it reads real numbers.
    """
    if target in _QUANTIZERS:
        return False
    operand = args[1 if target in _WEIGHTED else 0]
    if target is aten.cat.default:
        operand = operand[0]
    return isinstance(operand, torch.Tensor)


def _is_value(value: object) -> bool:
    return isinstance(value, Scaled | torch.Tensor)


def _real(value: Scaled | torch.Tensor) -> torch.Tensor:
    """Return the real numbers, in float64."""
    return (value.real if isinstance(value, Scaled) else value).double()


def quantize(value: Scaled | torch.Tensor, scale: float, zero_point: int, *_: object) -> Scaled:
    """Round a value to int8 codes by the module's formula; return them as q - zero_point.

    A plain tensor is the network's input, or was computed in float: it is divided by the scale in
    float32.
    """
    step = torch.tensor(scale, dtype=torch.float32)
    steps = unrounded(value, step)
    return Scaled(steps.round_().clamp_(-128 - zero_point, 127 - zero_point), step)


def unrounded(value: Scaled | torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """Return the number that `quantize` rounds, in steps."""
    if isinstance(value, Scaled):
        return value.values.float() * (value.scale / step)
    return value.float() / step


def half_way_distance(steps: torch.Tensor) -> torch.Tensor:
    """Return the distance of numbers, in steps, from the nearest half-way point."""
    return 0.5 - steps.round().sub_(steps).abs_()


def _as_codes(rounding: Rounding) -> Codes:
    """Return the codes that `quantize` made."""
    result = rounding.result
    steps = unrounded(rounding.value, result.scale)
    return Codes(
        codes=(result.values + rounding.zero_point).to(torch.int8).numpy(),
        scale=float(result.scale),
        zero_point=rounding.zero_point,
        half_way=half_way_distance(steps).numpy(),
    )


def dequantize(codes: Scaled, *_: object) -> Scaled:
    """Return the codes as they are: a `Scaled` holds its scale."""
    return codes


def dequantize_weight(
    weight: torch.Tensor, scales: torch.Tensor, _zeros: object, axis: int, *_: object
) -> Scaled:
    """Return int8 weights with their scale per output channel."""
    assert axis == 0, "weights are quantized per output channel"
    return Scaled(weight.float(), scales.float())


def convolution(
    x: Scaled,
    weight: Scaled,
    bias: torch.Tensor,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Scaled:
    """Accumulate products and the int32 bias; padding adds zeros, the value of the zero-point."""
    scale = x.scale * weight.scale
    codes = _codes_of_bias(bias, scale)
    # For dense spatial kernels oneDNN may use Winograd convolution, which is inexact in float32.
    dense_spatial = groups == 1 and weight.values.shape[-1] > 1
    exact = torch.float64 if dense_spatial else _exact_type(weight.values, codes)
    sums = F.conv2d(
        x.values.to(exact), weight.values.to(exact), None, stride, padding, dilation, groups
    )
    return Scaled(sums.add_(codes.to(exact).view(-1, 1, 1)), scale.view(-1, 1, 1))


def linear(x: Scaled, weight: Scaled, bias: torch.Tensor) -> Scaled:
    """Accumulate products and the int32 bias."""
    scale = x.scale * weight.scale
    codes = _codes_of_bias(bias, scale)
    exact = _exact_type(weight.values, codes)
    sums = F.linear(x.values.to(exact), weight.values.to(exact))
    return Scaled(sums.add_(codes.to(exact)), scale)


def _exact_type(weight: torch.Tensor, bias: torch.Tensor) -> torch.dtype:
    """Return float32 if it holds every partial sum of a layer, in any order; float64 otherwise.

    Args:
        weight: Integer weights, (out, ...).
        bias: Integer biases, (out,).
    """
    largest = _LARGEST_CODE * weight.abs().flatten(1).sum(1) + bias.abs()
    return torch.float32 if largest.max() < _EXACT_IN_FLOAT32 else torch.float64


def add(a: Scaled, b: Scaled) -> Scaled:
    """Add integers; both operands must have the same scale."""
    if a.scale != b.scale:
        raise ExportError(
            "The operands of an addition have different scales; expected one scale, so that the"
            " addition is exact."
        )
    return Scaled(a.values + b.values, a.scale)


def multiply(a: Scaled, b: Scaled) -> Scaled:
    """Multiply the integers, and the scales in float32."""
    return Scaled(a.values * b.values, a.scale * b.scale)


def pool(x: Scaled, _size: object) -> Scaled:
    """Sum over height and width; the scale of the sum is the input's divided by the count."""
    count = x.values.shape[-1] * x.values.shape[-2]
    return Scaled(x.values.double().sum((-2, -1), keepdim=True), x.scale / count)


def max_pool(x: Scaled, *window: Any) -> Scaled:
    """Take the largest integer of each window."""
    return Scaled(F.max_pool2d(x.values, *window), x.scale)


def hardswish(x: Scaled) -> Scaled:
    """Multiply by hard-sigmoid, clamp(x + 3, 0, 6) / 6, whose integers are those of x shifted by 3.

    The encoding of the input starts at -3, and 3 is a whole number of steps.
    """
    steps = (3 / x.scale).round()
    gate = Scaled((x.values + steps).clamp(max=2 * steps), x.scale / 6)
    return multiply(x, gate)


def sigmoid(x: Scaled) -> torch.Tensor:
    """Return the real sigmoid; the input's scale keeps all 256 of them away from rounding ties."""
    return torch.sigmoid(x.values.double() * x.scale.double()).float()


def hardtanh(x: Scaled, low: float, high: float) -> Scaled:
    """Clamp to (low, high), in units of the scale."""
    return Scaled(x.values.clamp(low / x.scale, high / x.scale), x.scale)


def relu(x: Scaled) -> Scaled:
    """Clamp at zero."""
    return Scaled(x.values.clamp(min=0), x.scale)


def copying(target: Any) -> Callable[..., Scaled]:
    """Return the integer form of an ATen operator that copies values."""

    def copied(x: Scaled, *arguments: Any) -> Scaled:
        return Scaled(target(x.values, *arguments), x.scale)

    return copied


def pad(
    x: Scaled, amounts: list[int], mode: str = "constant", value: float | None = None
) -> Scaled:
    """Pad with zeros, the value of the zero-point, or append channels of opaque alpha."""
    return Scaled(F.pad(x.values, amounts, mode, (value or 0.0) / float(x.scale)), x.scale)


def concatenate(parts: list[Scaled], axis: int) -> Scaled:
    """Join tensors of one scale along an axis."""
    if any(part.scale != parts[0].scale for part in parts):
        raise ExportError(
            "The operands of a concatenation have different scales; expected one scale, so that it"
            " copies codes."
        )
    return Scaled(torch.cat([part.values for part in parts], axis), parts[0].scale)


def _codes_of_bias(bias: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return the int32 codes of a bias on the grid of `scale`."""
    return (bias.double() / scale.double()).round()


_QUANTIZERS = (
    _QUANTIZE,
    quantized.dequantize_per_tensor.default,
    quantized.dequantize_per_channel.default,
)
_WEIGHTED = (aten.conv2d.default, aten.linear.default)
_COPYING = (
    aten.flatten.using_ints,
    aten.reshape.default,
    aten.permute.default,
    aten.slice.Tensor,
    aten.upsample_nearest2d.vec,
)
_INTEGER_OPS: dict[object, Callable[..., Scaled | torch.Tensor]] = {
    _QUANTIZE: quantize,
    quantized.dequantize_per_tensor.default: dequantize,
    quantized.dequantize_per_channel.default: dequantize_weight,
    aten.conv2d.default: convolution,
    aten.linear.default: linear,
    aten.add.Tensor: add,
    aten.mul.Tensor: multiply,
    aten.adaptive_avg_pool2d.default: pool,
    aten.hardtanh.default: hardtanh,
    aten.relu.default: relu,
    aten.max_pool2d.default: max_pool,
    aten.hardswish.default: hardswish,
    aten.sigmoid.default: sigmoid,
    aten.pad.default: pad,
    aten.cat.default: concatenate,
    **{target: copying(target) for target in _COPYING},
}
