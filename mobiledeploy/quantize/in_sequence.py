"""Weights and biases, rounded layer by layer: each layer sees what those before it have become.

In: the float network and the encodings of its activations. Out: every layer's weight on its grid,
and its bias corrected.

Bias correction. Rounding moves the mean of a channel's output; the bias moves it back:

    b += E[(W - W_q) x_q]        (mean over images, height and width)

with x_q the input as the quantized network computes it, from layers that are rounded and corrected
already. The error of x_q itself is not corrected: where its range was narrowed, that error is what
a few images with large activations lose, and a bias that made good for it would spoil all others
(measured: docs/decisions/0005).

Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction"
(2019), section 4.2, in its empirical form, made sequential.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torch

from mobiledeploy.quantize.simulate import Simulation

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch.fx import GraphModule, Node

    from mobiledeploy.graph import Unit
    from mobiledeploy.types import Encoding


Rounding: TypeAlias = "Callable[[Node, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]"
"""(operator, weight, scales, input) -> weight on its grid."""


@dataclass(frozen=True, slots=True)
class Rounded:
    """A layer's parameters after rounding.

    Attributes:
        weight: On its grid, in float.
        bias: Corrected, (out,), not yet on its grid.
    """

    weight: torch.Tensor
    bias: torch.Tensor


def round_in_sequence(
    traced: GraphModule,
    units: Sequence[Unit],
    encodings: Mapping[str, Encoding],
    scales: Mapping[str, torch.Tensor],
    images: NDArray[np.float32],
    rounding: Rounding,
    floating: Collection[str] = (),
) -> dict[str, Rounded]:
    """Return every int8 layer's rounded parameters, by the name of the unit's operator.

    Args:
        traced: The float network; it is left as it is.
        units: Of it.
        encodings: By node name.
        scales: Of the weights, by the name of the unit's operator.
        images: (N, C, H, W), all held in memory at once with a layer's activations.
        rounding: How a layer's weights are rounded, given the input that it gets.
        floating: Names of the operators of the units that compute in float.
    """
    sequence = _Sequence(traced, units, encodings, scales, rounding, floating)
    with torch.no_grad():
        sequence.run(torch.from_numpy(images).to(memory_format=torch.channels_last))
    return sequence.rounded


class _Sequence(Simulation):
    """Runs the network as quantized, rounding each layer when its input has arrived."""

    def __init__(
        self,
        traced: GraphModule,
        units: Sequence[Unit],
        encodings: Mapping[str, Encoding],
        scales: Mapping[str, torch.Tensor],
        rounding: Rounding,
        floating: Collection[str],
    ) -> None:
        self.rounded: dict[str, Rounded] = {}
        super().__init__(traced, units, encodings, self.rounded, floating)
        self._scales = scales
        self._rounding = rounding

    def parameters(self, n: Node, operands: Sequence[Any]) -> Rounded:
        """Round the layer; its bias takes over what that did to the mean."""
        x, weight, bias, *settings = operands
        on_grid = self._rounding(n, weight, self._scales[n.name], x)
        lost = cast("Any", n.target)(x, weight - on_grid, None, *settings)
        shift = lost.mean([axis for axis in range(lost.dim()) if axis != 1])
        self.rounded[n.name] = Rounded(on_grid, bias + shift)
        return self.rounded[n.name]
