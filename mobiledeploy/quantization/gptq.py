"""Round weights so that their errors cancel on the inputs that the layer really sees.

Rounding each weight to nearest is best for the weights, not for the outputs. With H = E[x x^T]
over the layer's (quantized, centred) inputs, the error of an output channel is e^T H e. The
weights of all channels are rounded column by column, and after each, the columns that are still
free take over what the rounding just lost (optimal brain surgeon):

    q_k = round(w_k),   w_j -= (w_k - q_k) U_kj / U_kk   for j > k,   U = upper Cholesky factor of
    H^-1

Columns with the largest E[x_k^2] come first, while there is most left to compensate with. Depthwise
convolutions are the same problem once per channel, with nine columns each.

Source: Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers" (2023), section 3, for the column order and the Cholesky form; applied to
convolutions as in Frantar & Alistarh, "Optimal Brain Compression" (2022), section 5.

Invariant: every weight stays on the grid that `weights` chose; the function sees no labels and no
gradients, only the inputs' second moments.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import torch
from torch.nn import functional as F

from mobiledeploy.graph.aten_graph import groups_of
from mobiledeploy.utils.threads import parallel_map

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.fx import Node

# Added to the diagonal of H, as a share of its mean: keeps few images from being fitted too
# closely.
_DAMPING = 0.02
# Positions that H is estimated from, in all images: early layers have far more than are needed.
_POSITIONS = 10_000
# Columns between which errors are passed on one by one; later ones get a block's errors at once.
_BLOCK = 64


def gptq(
    node: Node, weight: torch.Tensor, scales: torch.Tensor, inputs: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Return a layer's weight on its grid.

    Args:
        node: The convolution or linear operator.
        weight: (out, in / groups, kH, kW) or (out, in).
        scales: (out,).
        inputs: What the layer reads, as the quantized network computes it, in parts: each
            (N, in, H, W) or (N, in).
    """
    groups = groups_of(node)
    moments = _moments(node, weight, inputs)
    rows = weight.reshape(groups, weight.shape[0] // groups, -1).double()
    grid = scales.view(groups, -1).double()
    return _gptq_columns(rows, grid, moments).reshape(weight.shape).float()


def _moments(node: Node, weight: torch.Tensor, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return H, the covariance of the layer's inputs: (groups, k, k), k = in / groups * kH * kW."""
    side = max(1, math.isqrt(_POSITIONS // sum(len(x) for x in inputs)))
    # about a mean that is nearly theirs, for float32's sake
    about = _columns(node, weight, inputs[0], side).mean(1, keepdim=True)

    def sums(x: torch.Tensor) -> tuple[int, torch.Tensor, torch.Tensor]:
        columns = _columns(node, weight, x, side) - about
        return columns.shape[1], columns.sum(1), columns.transpose(1, 2) @ columns

    count, first, second = 0, torch.zeros(()), torch.zeros(())
    for positions, sum_of, sum_of_squares in parallel_map(sums, inputs):
        count += positions
        first = first + sum_of.double()
        second = second + sum_of_squares.double()
    mean = first / count
    return second / count - mean[:, :, None] * mean[:, None]


def _columns(node: Node, weight: torch.Tensor, x: torch.Tensor, most: int) -> torch.Tensor:
    """Return the inputs of output positions: (groups, positions, in / groups * kH * kW).

    Of every image about `most` squared, evenly spread, where there are so many.
    """
    if x.dim() == 2:
        return x.unsqueeze(0)
    groups, each, kernel = groups_of(node), weight.shape[1], weight.shape[-1]
    stride = cast("list[int]", node.args[3])[0] if len(node.args) > 3 else 1
    padding = cast("list[int]", node.args[4])[0] if len(node.args) > 4 else 0
    dilation = cast("list[int]", node.args[5])[0] if len(node.args) > 5 else 1
    side = (x.shape[-1] + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    sparse = stride * max(1, side // most)
    if kernel == 1:  # as below, with less copying
        return x[..., ::sparse, ::sparse].movedim(1, -1).reshape(-1, groups, each).movedim(1, 0)
    patches = F.unfold(x, kernel, dilation=dilation, padding=padding, stride=sparse)
    count, _, positions = patches.shape
    grouped = patches.view(count, groups, -1, positions)
    return grouped.permute(1, 0, 3, 2).reshape(groups, count * positions, -1)


def _gptq_columns(rows: torch.Tensor, grid: torch.Tensor, moments: torch.Tensor) -> torch.Tensor:
    """Round rows (groups, out, k) on grid (groups, out), given moments (groups, k, k)."""
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
    """Round a block's columns one by one, in place; return what the later blocks have to cancel."""
    errors = torch.empty_like(rows[:, :, block])
    for k in range(block.start, block.stop):
        column = rows[:, :, k]
        rounded[:, :, k] = (column / grid).round().clamp(-127, 127) * grid
        error = (column - rounded[:, :, k]) / upper[:, k, k, None]
        rows[:, :, k + 1 : block.stop] -= error.unsqueeze(2) * upper[:, None, k, k + 1 : block.stop]
        errors[:, :, k - block.start] = error
    return errors
