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

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from torch.fx import GraphModule, Node

    from mobiledeploy.graph.aten_graph import FusedOp
    from mobiledeploy.network import Encoding


def fake_quantize(
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
    return cast("torch.Tensor", cast("Any", _FakeQuantize).apply(x, step, low, high))


class _FakeQuantize(torch.autograd.Function):
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


class FakeQuantizedNetwork(torch.fx.Interpreter):
    """Runs the network with some units in int8 and the others in float.

    Args:
        traced: The float network.
        ops: Of it.
        encodings: By node name.
        rounded: Parameters of the int8 layers, by the name of the unit's operator.
        floating: Names of the operators of the units that compute in float.
        keep: Hold every node's value, for `values`; else each is freed after its last use.
    """

    def __init__(
        self,
        traced: GraphModule,
        ops: Sequence[FusedOp],
        encodings: Mapping[str, Encoding],
        rounded: Mapping[str, Rounded],
        floating: Collection[str] = (),
        *,
        keep: bool = False,
    ) -> None:
        super().__init__(traced, garbage_collect_values=not keep)
        self._encodings = encodings
        self._rounded = rounded
        self._integer = {u.operator: u for u in ops if u.operator.name not in floating}
        self._written = {op.output for op in self._integer.values()}

    def values(
        self, images: torch.Tensor, known: Mapping[Node, torch.Tensor] | None = None
    ) -> dict[Node, torch.Tensor]:
        """Return every node's value for (N, C, H, W).

        Args:
            images: The input.
            known: Values of nodes that need not be computed again.
        """
        self.run(images, initial_env=dict(known or {}))
        return cast("dict[Node, torch.Tensor]", dict(self.env))

    def start(self, images: torch.Tensor) -> None:
        """Be ready to `advance` through the graph, node by node."""
        self.env = {}
        self.args_iter = iter([images])

    def advance(self, n: Node, raw: torch.Tensor | None = None) -> None:
        """Compute a node's value, all before it being known; free what nobody reads any more.

        Args:
            n: The node.
            raw: What its operator gives, if that is known.
        """
        self.env[n] = self.run_node(n) if raw is None else self._as_written(n, raw)
        for done in self.user_to_last_uses.get(n, ()):
            del self.env[done]

    def run_node(self, n: Node) -> Any:
        """Return a node's value; behind an int8 unit, what its code stands for."""
        value = super().run_node(n) if n not in self._integer else self._integer_unit(n)
        return self._as_written(n, value)

    def _as_written(self, n: Node, value: Any) -> Any:
        return self._coded(n, value) if n in self._written else value

    def _integer_unit(self, n: Node) -> Any:
        """Run an int8 unit's operator, on codes."""
        operands = self.operands(n)
        if self._integer[n].has_weight:
            rounded = self.parameters(n, operands)
            operands[1:3] = [rounded.weight, rounded.bias]
        return cast("Any", n.target)(*operands, **n.kwargs)

    def operands(self, n: Node) -> list[Any]:
        """Return what an int8 unit's operator is given: activations on their codes, the rest."""
        args, _ = self.fetch_args_kwargs_from_env(n)
        operands = list(args)
        for position, node in enumerate(self._integer[n].activations):
            if node not in self._written:
                operands[position] = self._coded(node, operands[position])
        return operands

    def parameters(self, n: Node, operands: Sequence[Any]) -> Rounded:  # noqa: ARG002
        """Return an int8 layer's parameters, given (input, float weight, float bias, ...)."""
        return self._rounded[n.name]

    def _coded(self, node: Node, value: torch.Tensor) -> torch.Tensor:
        return fake_quantize(value, self._encodings[node.name])


@dataclass(frozen=True, slots=True)
class Rounded:
    """A layer's parameters after rounding.

    Attributes:
        weight: On its grid, in float.
        bias: Corrected, (out,), in float; `prepare.round_parameters` puts it on its grid.
    """

    weight: torch.Tensor
    bias: torch.Tensor
