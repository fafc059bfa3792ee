"""Which of several choices of encodings brings the quantized logits nearest to the float ones.

Activations are on their encodings, weights in float: what is judged is what encodings decide. Where
products are, what rounding does to means differs from choice to choice by more than all else, and
biases will make good for it (see `in_sequence`): there, they do so before anything is judged.
Images that nobody has learned from judge (see `descent`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch

from mobiledeploy.graph import weight_and_bias
from mobiledeploy.progress import step
from mobiledeploy.quantize.descent import float_logits, judges_and_others, loss
from mobiledeploy.quantize.in_sequence import Rounded, round_in_sequence
from mobiledeploy.quantize.simulate import Simulation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch.fx import GraphModule, Node

    from mobiledeploy.graph import Unit
    from mobiledeploy.types import Encoding

    Encodings = Mapping[str, Encoding]


def best_encodings(
    traced: GraphModule,
    units: Sequence[Unit],
    choices: Sequence[Encodings],
    images: NDArray[np.float32],
    correcting: NDArray[np.float32],
) -> int:
    """Return the number of the choice with the least loss.

    Args:
        traced: The float network.
        units: Of it.
        choices: Each with the encoding of every node, by its name.
        images: Of the calibration, (N, C, H, W).
        correcting: Others of them, to correct biases with.
    """
    judges, _ = judges_and_others(len(images))
    with step("Judging ranges"):
        targets = float_logits(traced, images[judges])
        losses = []
        for encodings in choices:
            parameters = _parameters(traced, units, encodings, correcting)
            network = _Judged(traced, units, encodings, parameters)
            losses.append(loss(network, images[judges], targets))
    return losses.index(min(losses))


def _parameters(
    traced: GraphModule, units: Sequence[Unit], encodings: Encodings, images: NDArray[np.float32]
) -> Mapping[str, Rounded]:
    """Return every layer's float weight, and its bias: corrected where products are."""
    layers = [unit for unit in units if unit.has_weight]
    if not any(unit.kind == "multiply" for unit in units):
        return {unit.operator.name: Rounded(*weight_and_bias(traced, unit)) for unit in layers}
    scales = {unit.operator.name: torch.ones(()) for unit in layers}
    return round_in_sequence(traced, units, encodings, scales, images, _left_alone)


def _left_alone(
    _node: Node, weight: torch.Tensor, _scales: torch.Tensor, _inputs: Sequence[torch.Tensor]
) -> torch.Tensor:
    return weight


@dataclass(frozen=True, slots=True)
class _Judged:
    """A network whose activations are on codes; several threads may run it."""

    traced: GraphModule
    units: Sequence[Unit]
    encodings: Encodings
    parameters: Mapping[str, Rounded]

    def run(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits, (N, classes)."""
        simulation = Simulation(self.traced, self.units, self.encodings, self.parameters)
        return cast("torch.Tensor", simulation.run(images))
