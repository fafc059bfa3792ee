"""What the int8 network computes, by definition: integer arithmetic, one operator at a time.

Every value is an integer tensor times a scale. An operator combines the integers exactly; the one
place where anything is rounded is `quantize`:

    q = saturate(round_half_even(float32(n) * float32(s / s_y)) + z_y)

which is what XNNPACK's and ONNX Runtime's kernels do with their int32 accumulators, on x86-64 and
on ARM64. A runtime is right when its logits equal these, bit for bit. (PyTorch's own run of the
graph is not this: it rounds float convolutions.)

Layers that are kept in float are computed in float64, and rounded to float32 where they are
quantized or leave the network. No runtime does that: of such a network bits cannot be promised.

Sources: Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference" (2018), section 2, for the scheme; the two runtimes' kernels for
the order of the roundings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torchao.quantization.pt2e.quantize_pt2e  # noqa: F401 - registers quantized_decomposed
from torch.nn import functional as F

from mobiledeploy.errors import ExportError
from mobiledeploy.graph.aten_graph import clamp_of, module_of
from mobiledeploy.network import INPUT_NAME, OUTPUT_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray
    from torch.fx import Graph, Node

    from mobiledeploy.network import QuantizedModel

aten = torch.ops.aten
quantized = torch.ops.quantized_decomposed

_QUANTIZE = quantized.quantize_per_tensor.default

# Products of two codes stay below 255 * 127; below this many of them a float32 sum is exact.
_EXACT_IN_FLOAT32 = 2**24 // (255 * 127)


@dataclass(frozen=True, slots=True)
class Scaled:
    """Integers and what one step is worth: real = values * scale.

    Attributes:
        values: Whole numbers, held in float32 or float64 (exactly).
        scale: float32; a scalar, or one per channel shaped to broadcast over `values`.
    """

    values: torch.Tensor
    scale: torch.Tensor

    @property
    def real(self) -> torch.Tensor:
        """Return the real numbers, in float32."""
        return self.values.float() * self.scale


@dataclass(frozen=True, slots=True)
class Codes:
    """What one layer puts out.

    Attributes:
        codes: int8, (N, ...).
        scale: real = (codes - zero_point) * scale.
        zero_point: See `scale`.
        half_way: float32, shaped like `codes`: how far the number that was rounded lay from the
            nearest half, in steps. A runtime that adds in float can only differ where this is
            next to nothing.
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


class IntegerReference:
    """Runs a `QuantizedModel` by its definition; a `Runner` like any runtime.

    Batches of any size are accepted, from any number of threads at a time.

    Attributes:
        logit_step: What one code of the logits is worth; None where they are computed in float.
        exact: Whether everything is integers: only then can a runtime be held to every bit.
        operators: By the name of each `quantize` node: the operator whose result it rounds, and the
            module that this came from ("" for the input).
    """

    name = "integer reference"

    def __init__(self, model: QuantizedModel) -> None:
        self._module = model.program.module(check_guards=False)
        self.operators = _operators(self._module.graph)
        (output,) = model.program.graph.find_nodes(op="output")
        ((last,),) = output.args
        in_codes = last.target is quantized.dequantize_per_tensor.default
        self.logit_step = float(last.args[1]) if in_codes else None
        self.exact = not model.recipe.float_layers

    def run(self, inputs: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        """Return {"logits": (N, classes)} for {"input": (N, C, H, W)}."""
        with torch.no_grad():
            logits = _Interpreter(self._module).run(torch.from_numpy(inputs[INPUT_NAME]))
        return {OUTPUT_NAME: _real(logits).float().numpy()}

    def layers(self, images: NDArray[np.float32]) -> dict[str, Codes]:
        """Return what every `quantize` node puts out for (N, C, H, W), in topological order."""
        interpreter = _Interpreter(self._module)
        interpreter.seen = {}
        with torch.no_grad():
            interpreter.run(torch.from_numpy(images))
        return interpreter.seen


def _operators(graph: Graph) -> dict[str, tuple[str, str]]:
    """Return (operator, module) by the name of the `quantize` node behind it."""
    named = {}
    for node in graph.find_nodes(op="call_function", target=_QUANTIZE):
        source = node.args[0]
        if clamp_of(source) is not None:
            source = source.args[0]
        named[node.name] = (source.name, module_of(source))
    return named


class _Interpreter(torch.fx.Interpreter):
    """Gives the graph's operators their integer meaning.

    Attributes:
        seen: Where the outputs of `quantize` nodes are kept; None keeps none.
    """

    seen: dict[str, Codes] | None = None

    def run_node(self, n: Node) -> object:
        result = super().run_node(n)
        if self.seen is not None and n.target is _QUANTIZE:
            (value, _, zero_point, *_), _ = self.fetch_args_kwargs_from_env(n)
            self.seen[n.name] = _as_codes(result, value, int(zero_point))
        return result

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        if target not in _MEANING:
            raise ExportError(f"The operator {target} has no integer meaning.")
        if _is_float(target, args):
            return target(*(_real(a) if _is_value(a) else a for a in args), **kwargs)
        return _MEANING[target](*args, **kwargs)


def _is_float(target: object, args: tuple[Any, ...]) -> bool:
    """Return whether an operator belongs to a layer that is kept in float.

    A layer is, where its weight is; what has no weight, where it reads numbers and not codes.
    """
    if target in _CODING:
        return False
    return isinstance(args[1 if target in _WEIGHTED else 0], torch.Tensor)


def _is_value(value: object) -> bool:
    return isinstance(value, Scaled | torch.Tensor)


def _real(value: Scaled | torch.Tensor) -> torch.Tensor:
    """Return the real numbers, in float64."""
    return (value.real if isinstance(value, Scaled) else value).double()


def quantize(value: Scaled | torch.Tensor, scale: float, zero_point: int, *_: object) -> Scaled:
    """Round a value to int8 codes (the module's formula); keep them as q - zero_point.

    A plain tensor is the network's input, or was computed in float: real / scale, divided in
    float32.
    """
    step = torch.tensor(scale, dtype=torch.float32)
    steps = _unrounded(value, step)
    return Scaled(steps.round().clamp(-128 - zero_point, 127 - zero_point), step)


def _unrounded(value: Scaled | torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """Return what `quantize` rounds, in units of the step."""
    if isinstance(value, Scaled):
        return value.values.float() * (value.scale / step)
    return value.float() / step


def _as_codes(result: Scaled, value: Scaled | torch.Tensor, zero_point: int) -> Codes:
    """Return the codes of what `quantize` made of `value`."""
    steps = _unrounded(value, result.scale)
    return Codes(
        codes=(result.values + zero_point).to(torch.int8).numpy(),
        scale=float(result.scale),
        zero_point=zero_point,
        half_way=(steps - steps.floor() - 0.5).abs().numpy(),
    )


def dequantize(codes: Scaled, *_: object) -> Scaled:
    """Read codes as numbers: nothing to do, a `Scaled` knows its scale."""
    return codes


def dequantize_weight(
    weight: torch.Tensor, scales: torch.Tensor, _zeros: object, axis: int, *_: object
) -> Scaled:
    """Read int8 weights with their scale per output channel."""
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
    """Accumulate products and the int32 bias; padding adds zeros: what a zero-point means."""
    scale = x.scale * weight.scale
    terms = weight.values[0].numel()
    # oneDNN may take Winograd's algorithm for a dense spatial kernel, which is not exact in float32
    dense_spatial = groups == 1 and weight.values.shape[-1] > 1
    exact = torch.float32 if terms <= _EXACT_IN_FLOAT32 and not dense_spatial else torch.float64
    sums = F.conv2d(
        x.values.to(exact), weight.values.to(exact), None, stride, padding, dilation, groups
    )
    sums = sums.double() + _codes_of_bias(bias, scale).view(-1, 1, 1)
    return Scaled(sums, scale.view(-1, 1, 1))


def linear(x: Scaled, weight: Scaled, bias: torch.Tensor) -> Scaled:
    """Accumulate products and the int32 bias."""
    scale = x.scale * weight.scale
    sums = F.linear(x.values.double(), weight.values.double())
    return Scaled(sums + _codes_of_bias(bias, scale), scale)


def add(a: Scaled, b: Scaled) -> Scaled:
    """Add integers that mean the same: both operands must share one scale."""
    if a.scale != b.scale:
        raise ExportError("An addition's operands have different scales; it would not be exact.")
    return Scaled(a.values + b.values, a.scale)


def multiply(a: Scaled, b: Scaled) -> Scaled:
    """Multiply integers, and scales in float32."""
    return Scaled(a.values * b.values, a.scale * b.scale)


def pool(x: Scaled, _size: object) -> Scaled:
    """Sum over height and width; a step of the sum is a step / count of the mean."""
    count = x.values.shape[-1] * x.values.shape[-2]
    return Scaled(x.values.double().sum((-2, -1), keepdim=True), x.scale / count)


def hardswish(x: Scaled) -> Scaled:
    """Multiply codes by hard-sigmoid, which is the same codes counted from -3, clamped at 6.

    The encoding in front of a hard-swish starts at -3 exactly: 3 is `steps` steps.
    """
    steps = (3 / x.scale).round()
    gate = Scaled((x.values + steps).clamp(max=2 * steps), x.scale / 6)
    return multiply(x, gate)


def hardtanh(x: Scaled, low: float, high: float) -> Scaled:
    """Clamp in units of the scale."""
    return Scaled(x.values.clamp(low / x.scale, high / x.scale), x.scale)


def relu(x: Scaled) -> Scaled:
    """Clamp at zero."""
    return Scaled(x.values.clamp(min=0), x.scale)


def flatten(x: Scaled, start: int) -> Scaled:
    """Merge all axes from `start` on."""
    return Scaled(x.values.flatten(start), x.scale)


def pad(x: Scaled, amounts: list[int], *_: object) -> Scaled:
    """Surround with zeros: with the code that means zero."""
    return Scaled(F.pad(x.values, amounts), x.scale)


def _codes_of_bias(bias: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return the int32 codes of a bias that lies on the grid of `scale`."""
    return (bias.double() / scale.double()).round()


_CODING = (
    _QUANTIZE,
    quantized.dequantize_per_tensor.default,
    quantized.dequantize_per_channel.default,
)
_WEIGHTED = (aten.conv2d.default, aten.linear.default)
_MEANING: dict[object, Callable[..., Scaled]] = {
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
    aten.hardswish.default: hardswish,
    aten.flatten.using_ints: flatten,
    aten.pad.default: pad,
}
