"""Fake quantization: int8 encodings simulated in float, for single tensors and whole networks.

Input: a tensor and its encoding, or a `Plan` and weights. Output: the real numbers that the int8
codes represent.
Maths: x_q = s (clamp(round(x / s), -128 - z, 127 - z)). The gradient is straight-through: that of
the identity, zero where x is clipped (Bengio et al., "Estimating or Propagating Gradients Through
Stochastic Neurons", 2013); for the step s it is clamp(round(x / s)) - x / s, and the code where x
is clipped (LSQ: Esser et al., "Learned Step Size Quantization", 2020, section 2.1).
Invariant: values and gradients equal those of `torch.fake_quantize_per_tensor_affine`, which
computes element by element; operations on whole tensors take a tenth of its time (on AVX2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch.fx import Node

    from mobiledeploy.quantization.plan import Plan
    from mobiledeploy.stages import Encoding


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """Weight and bias of one layer, in float.

    Attributes:
        weight: (out, in / groups, kH, kW) or (out, in); on its int8 grid once it is rounded.
        bias: (out,); on its int32 grid once `round_layers` has rounded it.
    """

    weight: torch.Tensor
    bias: torch.Tensor


def fake_quantize(
    x: torch.Tensor, encoding: Encoding, width: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the real numbers that a tensor's codes represent.

    Args:
        x: The tensor, (N, C, H, W) or (N, C).
        encoding: Its encoding.
        width: Factor of the scale, a scalar or one per channel (C,); it can be learned.
    """
    low, high = -128 - encoding.zero_point, 127 - encoding.zero_point
    step: float | torch.Tensor = encoding.scale
    if width is not None:
        step = encoding.scale * (width.view(-1, *[1] * (x.dim() - 2)) if width.dim() else width)
    return cast("torch.Tensor", cast("Any", _FakeQuantize).apply(x, step, low, high))


class _FakeQuantize(torch.autograd.Function):
    """The function and its gradient, in few passes over memory."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, step: float | torch.Tensor, low: int, high: int
    ) -> torch.Tensor:
        ctx.step, ctx.bounds = step, (low - 0.5, high + 0.5)
        steps = x * (1 / step)
        needs_gradient = any(ctx.needs_input_grad)
        rounded = steps.round() if needs_gradient else steps.round_()
        output = rounded.clamp_(low, high).mul_(step)
        if needs_gradient:
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


class FakeQuantizedNetwork(torch.fx.Interpreter):
    """Runs a planned network with fake-quantized activations and given weights.

    A value is quantized where an int8 operator writes it or reads it; between two operators that
    compute in float it passes unchanged. An instance belongs to one thread.

    Args:
        plan: The network, its encodings, and which operators compute in float.
        weights: Weights of the int8 layers, by operator name.
        keep: Keep every node's value for `values`; otherwise each is freed after its last use.
    """

    def __init__(
        self, plan: Plan, weights: Mapping[str, LayerWeights], *, keep: bool = False
    ) -> None:
        super().__init__(plan.traced, garbage_collect_values=not keep)
        self._encodings = plan.encodings
        self._weights = weights
        self._int8_ops = {op.operator: op for op in plan.ops if op.name not in plan.float_ops}
        self._quantized = {op.output for op in self._int8_ops.values()}

    def values(
        self, images: torch.Tensor, known: Mapping[Node, torch.Tensor] | None = None
    ) -> dict[Node, torch.Tensor]:
        """Run the network and return every node's value; needs `keep`.

        Args:
            images: The input, (N, C, H, W).
            known: Values of nodes that are not computed again.
        """
        self.run(images, initial_env=dict(known or {}))
        return cast("dict[Node, torch.Tensor]", dict(self.env))

    def start(self, images: torch.Tensor) -> None:
        """Prepare to `advance` through the graph node by node, for images (N, C, H, W)."""
        self.env = {}
        self.args_iter = iter([images])

    def advance(self, n: Node, raw: torch.Tensor | None = None) -> None:
        """Compute a node's value and free the values that no later node reads.

        Args:
            n: The next node; all nodes before it must be computed.
            raw: Result of the node's operator before quantization, if it is known.
        """
        self.env[n] = self.run_node(n) if raw is None else self._quantize_output(n, raw)
        for dead in self.user_to_last_uses.get(n, ()):
            del self.env[dead]

    def run_node(self, n: Node) -> Any:
        """Return a node's value, fake-quantized if an int8 operator writes it."""
        value = super().run_node(n) if n not in self._int8_ops else self._run_int8_op(n)
        return self._quantize_output(n, value)

    def _quantize_output(self, n: Node, value: Any) -> Any:
        return self._quantize(n, value) if n in self._quantized else value

    def _run_int8_op(self, n: Node) -> Any:
        operands = self.operands(n)
        if self._int8_ops[n].has_weight:
            layer = self.layer_weights(n, operands)
            operands[1:3] = [layer.weight, layer.bias]
        return cast("Any", n.target)(*operands, **n.kwargs)

    def operands(self, n: Node) -> list[Any]:
        """Return the operands of an int8 operator, its activations fake-quantized."""
        activations = self._int8_ops[n].activations

        def operand(node: Node) -> Any:
            value = self.env[node]
            is_float = node in activations and node not in self._quantized
            return self._quantize(node, value) if is_float else value

        return list(cast("Any", torch.fx.node.map_arg(n.args, operand)))

    def layer_weights(self, n: Node, operands: Sequence[Any]) -> LayerWeights:  # noqa: ARG002
        """Return an int8 layer's weights, given (input, float weight, float bias, ...)."""
        return self._weights[n.name]

    def _quantize(self, node: Node, value: torch.Tensor) -> torch.Tensor:
        return fake_quantize(value, self._encodings[node.name])


class FloatWeightNetwork(FakeQuantizedNetwork):
    """Runs a planned network with fake-quantized activations and its own float weights."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan, {})

    def layer_weights(self, n: Node, operands: Sequence[Any]) -> LayerWeights:  # noqa: ARG002
        """Return a layer's float weights."""
        return LayerWeights(operands[1], operands[2])
