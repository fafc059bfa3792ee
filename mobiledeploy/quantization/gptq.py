"""GPTQ: round weights so that their errors cancel on the inputs that the layer really sees.

Input: a layer's weight, its scales, and its quantized inputs. Output: the weight on its grid.
Maths: the error e of an output channel's weights costs e^T H e, with H = E[x x^T] over the centred
inputs. Columns are rounded one by one, and the columns after it compensate for the error of each:

    q_k = round(w_k),   w_j -= (w_k - q_k) U_kj / U_kk  for j > k,   U = upper Cholesky factor of
    H^-1

Source: Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers" (2022), section 3, for the Cholesky form and the blocks of columns; for convolutions,
Frantar and Alistarh, "Optimal Brain Compression" (2022), section 5. Columns with the largest
E[x_k^2] come first, while most columns are left to compensate ("act-order" in the authors' code).
It differs in the inputs, which are centred, because bias correction removes the mean error. A
depthwise convolution is one such problem per channel, with nine columns each.
Invariant: every weight stays on the grid of `weight_rounding.weight_scales`; no labels and no
gradients are used, only the second moments of the inputs.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import torch
from torch.nn import functional as F

from mobiledeploy.graph.nodes import groups_of
from mobiledeploy.utils.threads import parallel_map

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.fx import Node

# Damping: share of the mean diagonal of H that is added to the diagonal, against overfitting to few
# images.
_DAMPING = 0.02
# Output positions of all images that H is estimated from; early layers have far more.
_POSITIONS = 10_000
_DEPTHWISE_POSITIONS = 2_500  # H of nine columns needs fewer
# Columns per block: errors compensate column by column inside a block, and at once after it.
_BLOCK = 64


def gptq(
    node: Node, weight: torch.Tensor, scales: torch.Tensor, inputs: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Return a layer's weight on its grid; a `bias_correction.Rounding`.

    Args:
        node: The convolution or linear operator.
        weight: (out, in / groups, kH, kW) or (out, in).
        scales: (out,).
        inputs: Batches of the layer's input as the quantized network computes it, each
            (N, in, H, W) or (N, in).
    """
    groups = groups_of(node)
    moments = _moments(node, weight, inputs)
    rows = weight.reshape(groups, weight.shape[0] // groups, -1).double()
    grid = scales.view(groups, -1).double()
    return _gptq_columns(rows, grid, moments).reshape(weight.shape).float()


def _moments(node: Node, weight: torch.Tensor, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return H, the covariance of the inputs: (groups, k, k) with k = in / groups * kH * kW."""
    positions = _DEPTHWISE_POSITIONS if _is_depthwise(weight) else _POSITIONS
    side = max(1, math.isqrt(positions // sum(len(x) for x in inputs)))
    # Moments about an approximate mean: float32 would lose digits of inputs far from zero.
    about = _columns(node, weight, inputs[0], side).mean(1, keepdim=True)

    def sums(x: torch.Tensor) -> tuple[int, torch.Tensor, torch.Tensor]:
        columns = _columns(node, weight, x, side) - about
        return columns.shape[1], columns.sum(1), columns.transpose(1, 2) @ columns

    count, first, second = 0, torch.zeros(()), torch.zeros(())
    for summed, sum_of, sum_of_squares in parallel_map(sums, inputs):
        count += summed
        first = first + sum_of.double()
        second = second + sum_of_squares.double()
    mean = first / count
    return second / count - mean[:, :, None] * mean[:, None]


def _columns(node: Node, weight: torch.Tensor, x: torch.Tensor, most: int) -> torch.Tensor:
    """Return the inputs of output positions (im2col): (groups, positions, in / groups * kH * kW).

    Takes about most x most evenly spaced positions per image, or all if there are fewer.
    """
    if x.dim() == 2:
        return x.unsqueeze(0)
    groups, channels, kernel = groups_of(node), weight.shape[1], tuple(weight.shape[2:])
    defaults = ([1, 1], [0, 0], [1, 1])
    given = cast("tuple[list[int], ...]", (*node.args[3:6], *defaults[len(node.args[3:6]) :]))
    stride, padding, dilation = (tuple(pair) for pair in given)
    width = (x.shape[-1] + 2 * padding[1] - dilation[1] * (kernel[1] - 1) - 1) // stride[1] + 1
    sparse = tuple(each * max(1, width // most) for each in stride)
    if kernel == (1, 1):  # the same as below, with less copying
        pixels = x[..., :: sparse[0], :: sparse[1]]
        return pixels.movedim(1, -1).reshape(-1, groups, channels).movedim(1, 0)
    if _is_depthwise(weight):  # the same as below, with whole pixels copied
        padded = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
        spans = [step * (size - 1) + 1 for step, size in zip(dilation, kernel, strict=True)]
        windows = padded.unfold(2, spans[0], sparse[0]).unfold(3, spans[1], sparse[1])
        taps = windows[..., :: dilation[0], :: dilation[1]]  # (N, C, rows, columns, kH, kW)
        pixels = taps.permute(0, 2, 3, 4, 5, 1).reshape(-1, math.prod(kernel), groups)
        return pixels.permute(2, 0, 1).contiguous()
    patches = F.unfold(x, kernel, dilation=dilation, padding=padding, stride=sparse)
    count, _, positions = patches.shape
    grouped = patches.view(count, groups, -1, positions)
    return grouped.permute(1, 0, 3, 2).reshape(groups, count * positions, -1)


def _is_depthwise(weight: torch.Tensor) -> bool:
    return weight.dim() == 4 and weight.shape[1] == 1


def _gptq_columns(rows: torch.Tensor, grid: torch.Tensor, moments: torch.Tensor) -> torch.Tensor:
    """Round rows (groups, out, k) to the grid (groups, out), given H (groups, k, k)."""
    diagonal = moments.diagonal(dim1=1, dim2=2)
    mean = diagonal.mean(1, keepdim=True).clamp(min=1e-12)
    moments = moments + torch.diag_embed((_DAMPING * mean).expand_as(diagonal))
    order = diagonal.argsort(1, descending=True)
    rows = rows.gather(2, order.unsqueeze(1).expand_as(rows)).clone()
    moments = moments.gather(1, order.unsqueeze(2).expand_as(moments))
    moments = moments.gather(2, order.unsqueeze(1).expand_as(moments))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moments))
    upper = torch.linalg.cholesky(inverse, upper=True)
    rounded = torch.empty_like(rows)
    for start in range(0, rows.shape[2], _BLOCK):
        block = slice(start, min(start + _BLOCK, rows.shape[2]))
        errors = _gptq_block(rows, grid, upper, rounded, block)
        rows[:, :, block.stop :] -= errors @ upper[:, block, block.stop :]
    return torch.empty_like(rounded).scatter_(2, order.unsqueeze(1).expand_as(rounded), rounded)


def _gptq_block(
    rows: torch.Tensor, grid: torch.Tensor, upper: torch.Tensor, rounded: torch.Tensor, block: slice
) -> torch.Tensor:
    """Round a block of columns in place; return the errors that later blocks compensate for."""
    errors = torch.empty_like(rows[:, :, block])
    for k in range(block.start, block.stop):
        column = rows[:, :, k]
        rounded[:, :, k] = (column / grid).round().clamp(-127, 127) * grid
        error = (column - rounded[:, :, k]) / upper[:, k, k, None]
        rows[:, :, k + 1 : block.stop] -= error.unsqueeze(2) * upper[:, None, k, k + 1 : block.stop]
        errors[:, :, k - block.start] = error
    return errors
