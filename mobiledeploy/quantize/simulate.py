"""The quantized network in float, beside the float one: for decisions, not for results.

Fake quantization rounds like the integers do, but for the last bit: good enough to compare choices
of ranges and to see how rounding shifts a channel's mean. What the network computes is said by
`reference` alone.

Bias correction comes with it. In topological order, each bias is moved by the difference of the
means of the unit's float output and of its quantized output, computed from inputs that are
quantized, and corrected, already: each layer makes good for all before it.

    b += E[W x + b] - E[W_q x_q + b]        (mean over images, height and width)

Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction"
(2019), section 4.2, in its empirical form, made sequential.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch.fx import GraphModule, Node

    from mobiledeploy.graph import Unit
    from mobiledeploy.types import Encoding


Rounding: TypeAlias = "Callable[[Node, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]"
"""(operator, weight, scales, input) -> weight on its grid."""


@dataclass(frozen=True, slots=True)
class Simulated:
    """What a simulation showed.

    Attributes:
        rounded: The weights that were used, by the name of the unit's operator.
        bias_shifts: By the name of the unit's operator: what to add to its bias, (out,).
        loss: |logits - float logits|^2 / |float logits|^2: the inverse of the SQNR.
    """

    rounded: Mapping[str, torch.Tensor]
    bias_shifts: Mapping[str, torch.Tensor]
    loss: float


def simulate(
    traced: GraphModule,
    units: Sequence[Unit],
    encodings: Mapping[str, Encoding],
    scales: Mapping[str, torch.Tensor],
    images: NDArray[np.float32],
    *,
    rounding: Rounding,
) -> Simulated:
    """Run images through the float and the quantized network side by side.

    Args:
        traced: The float network.
        units: Of it.
        encodings: By node name.
        scales: Of the weights, by the name of the unit's operator.
        images: (N, C, H, W), all held in memory at once with two copies of a layer's activations.
        rounding: How a layer's weights are rounded, given the input that it gets.
    """
    pair = _Pair(traced, units, encodings, scales, rounding)
    with torch.no_grad():
        exact, approximate = pair.run(
            torch.from_numpy(images).to(memory_format=torch.channels_last)
        )
    error = (approximate - exact).square().sum() / exact.square().sum().clamp(min=1e-12)
    return Simulated(pair.rounded, pair.bias_shifts, float(error))


class _Pair(torch.fx.Interpreter):
    """Runs both networks at once; every activation is a pair (float, quantized)."""

    def __init__(
        self,
        traced: GraphModule,
        units: Sequence[Unit],
        encodings: Mapping[str, Encoding],
        scales: Mapping[str, torch.Tensor],
        rounding: Rounding,
    ) -> None:
        super().__init__(traced)
        self._outputs = {unit.output for unit in units}
        self._encodings = encodings
        self._scales = scales
        self._rounding = rounding
        self.rounded: dict[str, torch.Tensor] = {}
        self.bias_shifts: dict[str, torch.Tensor] = {}

    def run_node(self, n: Node) -> Any:
        if n.op == "placeholder":
            image = super().run_node(n)
            return image, self._quantized(n, image)
        if n.op != "call_function":
            return super().run_node(n)
        target, inexact = cast("Any", n.target), self._arguments(n, 1)
        if n.name in self._scales:
            x, weight = inexact[:2]
            self.rounded[n.name] = self._rounding(n, weight, self._scales[n.name], x)
            inexact[1] = self.rounded[n.name]
        exact, approximate = target(*self._arguments(n, 0)), target(*inexact)
        if n.name in self._scales:
            shift = (exact - approximate).mean([a for a in range(exact.dim()) if a != 1])
            self.bias_shifts[n.name] = shift
            approximate += shift.view(1, -1, *[1] * (exact.dim() - 2))
        if n in self._outputs:
            approximate = self._quantized(n, approximate)
        return exact, approximate

    def _arguments(self, n: Node, side: int) -> list[Any]:
        """Return a node's arguments, of every activation the float (0) or the quantized (1) one."""
        values = [self.env[a] if isinstance(a, torch.fx.Node) else a for a in n.args]
        return [value[side] if isinstance(value, tuple) else value for value in values]

    def _quantized(self, n: Node, value: torch.Tensor) -> torch.Tensor:
        encoding = self._encodings[n.name]
        return torch.fake_quantize_per_tensor_affine(
            value, encoding.scale, encoding.zero_point, -128, 127
        )
