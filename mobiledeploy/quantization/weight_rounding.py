"""Integer grids of weights and biases.

Input: a layer's float weight and bias. Output: scales per output channel, and values on the grids

    w = q_w s_w[c],  q_w in [-127, 127],        b = q_b (s_x s_w[c]),  q_b in int32

The values are written back into the float tensors; what quantizes them later (torchao the weights,
XNNPACK's serializer the biases) recovers exactly these integers.
Invariant: |q_b| <= 2**22, so that a float32 holds q_b s_x s_w to a quarter of a step, which
determines q_b, and no int32 accumulator overflows. Dead channels need the bound most: their tiny
weights ask for a tiny scale (onnxruntime issue 21000). Scales are chosen for 2**21, which leaves
room for bias correction and for learned biases.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mobiledeploy.quantization.tie_free import steps_of, tie_free_ratios

if TYPE_CHECKING:
    from mobiledeploy.stages import Encoding

_PLANNED_BIAS = 2.0**21
_LARGEST_BIAS = 2.0**22
_SMALLEST_SCALE = 2.0**-40


def weight_scales(
    weight: torch.Tensor, bias: torch.Tensor, input_scale: float, output: Encoding
) -> torch.Tensor:
    """Return the scale per output channel: max |w| / 127, but large enough for the bias.

    It is moved by up to a thousandth, or up to the finest grid that float32 allows, to where no
    result is half-way between two codes (see `tie_free`).

    Args:
        weight: (out, ...).
        bias: (out,).
        input_scale: Scale of the activation that the weights multiply.
        output: Encoding of the layer's output.

    Returns:
        (out,), float32.
    """
    largest = weight.flatten(1).abs().amax(1).double()
    floor = bias.double().abs() / (_PLANNED_BIAS * input_scale)
    wanted = torch.maximum(largest / 127, floor).clamp(min=_SMALLEST_SCALE)
    ratios = (wanted * input_scale / output.scale).numpy()
    ratios = tie_free_ratios(ratios, steps_of(output.zero_point))
    return torch.from_numpy(ratios * output.scale / input_scale).float()


def round_to_nearest(
    _node: object, weight: torch.Tensor, scales: torch.Tensor, _inputs: object
) -> torch.Tensor:
    """Return the weight rounded to nearest on its grid; a `bias_correction.Rounding`.

    Args:
        weight: (out, ...).
        scales: (out,).
    """
    per_channel = scales.view(-1, *[1] * (weight.dim() - 1))
    return (weight / per_channel).round().clamp(-127, 127) * per_channel


def round_bias(bias: torch.Tensor, scales: torch.Tensor, input_scale: float) -> torch.Tensor:
    """Return the bias (out,) rounded to its int32 grid of s_x s_w, in float32.

    The grid is computed in float32, as runtimes do; the division is in float64, so that dividing
    the result by the grid again gives the same integer in either precision.
    """
    grid = _bias_grid(scales, input_scale)
    codes = (bias.double() / grid).round().clamp(-_LARGEST_BIAS, _LARGEST_BIAS)
    return (codes * grid).float()


def largest_bias(scales: torch.Tensor, input_scale: float) -> torch.Tensor:
    """Return the largest magnitude of a bias on its grid, per channel (out,)."""
    return (_LARGEST_BIAS * _bias_grid(scales, input_scale)).float()


def _bias_grid(scales: torch.Tensor, input_scale: float) -> torch.Tensor:
    return (torch.tensor(input_scale, dtype=torch.float32) * scales).double()
