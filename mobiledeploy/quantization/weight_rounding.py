"""Weights and biases onto their integer grids.

w ≈ q_w * s_w[c],  q_w in [-127, 127],  per output channel c
b ≈ q_b * (s_x * s_w[c]),  q_b int32

The grid is decided here, once, and written back into the float tensors: whatever quantizes them
later (torchao for the weights, XNNPACK's serializer for the biases) recovers exactly these
integers.

Invariant: |q_b| <= 2**22, so that float32 holds the real number that it stands for to a quarter of
a step, which tells the integer, and no accumulator overflows. Also in dead channels, whose tiny
weights would ask for a tiny scale (onnxruntime issue 21000). Scales are chosen for 2**21, which
leaves room for what corrects a bias, or is learned of it, afterwards.
"""

from __future__ import annotations

import torch

_BIAS_LIMIT = 2.0**21
_LARGEST_BIAS = 2.0**22
_SMALLEST_SCALE = 2.0**-40


def weight_scales(weight: torch.Tensor, bias: torch.Tensor, input_scale: float) -> torch.Tensor:
    """Return the scale per output channel: max |w| / 127, floored so that the bias fits in int32.

    Args:
        weight: (out, ...).
        bias: (out,).
        input_scale: Of the activation that the weights multiply.

    Returns:
        (out,), float32.
    """
    largest = weight.flatten(1).abs().amax(1).double()
    floor = bias.double().abs() / (_BIAS_LIMIT * input_scale)
    return torch.maximum(largest / 127, floor).clamp(min=_SMALLEST_SCALE).float()


def round_to_nearest(
    _node: object, weight: torch.Tensor, scales: torch.Tensor, _inputs: object
) -> torch.Tensor:
    """Return the weight rounded to nearest on its grid, in float (an `in_sequence.Rounding`)."""
    per_channel = scales.view(-1, *[1] * (weight.dim() - 1))
    return (weight / per_channel).round().clamp(-127, 127) * per_channel


def round_bias(bias: torch.Tensor, scales: torch.Tensor, input_scale: float) -> torch.Tensor:
    """Return the bias rounded onto its int32 grid of s_x * s_w, still in float.

    The grid is formed in float32, as runtimes form it; the division is done in float64, so that
    dividing the result by the grid again gives the same integer in either precision.
    """
    grid = _bias_grid(scales, input_scale)
    codes = (bias.double() / grid).round().clamp(-_LARGEST_BIAS, _LARGEST_BIAS)
    return (codes * grid).float()


def largest_bias(scales: torch.Tensor, input_scale: float) -> torch.Tensor:
    """Return how large a bias may become, per channel, in float."""
    return (_LARGEST_BIAS * _bias_grid(scales, input_scale)).float()


def _bias_grid(scales: torch.Tensor, input_scale: float) -> torch.Tensor:
    return (torch.tensor(input_scale, dtype=torch.float32) * scales).double()
