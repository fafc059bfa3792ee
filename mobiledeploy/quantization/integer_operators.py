"""The operators of the integer reference: one function that defines each operator's integers.

Maths: every value is an integer tensor times a scale. An operator combines the integers exactly,
and only `quantize` rounds:

    q = saturate(round_half_even(float32(n) * float32(s / s_y)) + z_y)

which is what the kernels of XNNPACK and ONNX Runtime do with their int32 accumulators, on x86-64
and on ARM64.
Sources: Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference" (2018), section 2, for the scheme; the kernels of the two
runtimes for the order of the roundings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torchao.quantization.pt2e.quantize_pt2e  # noqa: F401 - registers quantized_decomposed
from torch.nn import functional as F

from mobiledeploy.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Callable

aten = torch.ops.aten
quantized = torch.ops.quantized_decomposed

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


def _codes_of_bias(bias: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return the int32 codes of a bias on the grid of `scale`."""
    return (bias.double() / scale.double()).round()


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


_COPYING = (
    aten.flatten.using_ints,
    aten.reshape.default,
    aten.permute.default,
    aten.slice.Tensor,
    aten.upsample_nearest2d.vec,
)
INTEGER_OPERATORS: dict[object, Callable[..., Scaled | torch.Tensor]] = {
    quantized.quantize_per_tensor.default: quantize,
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
"""The function that defines each ATen operator."""
