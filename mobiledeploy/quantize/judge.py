"""Which of several choices of encodings brings the quantized logits nearest to the float ones.

Activations are on their encodings, weights in float: what is judged is what encodings decide.
Images that nobody has learned from judge (see `descent`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from mobiledeploy.progress import step
from mobiledeploy.quantize.descent import float_logits, judges_and_others, loss
from mobiledeploy.quantize.in_sequence import Rounded
from mobiledeploy.quantize.simulate import Simulation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import torch
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
) -> int:
    """Return the number of the choice with the least loss.

    Args:
        traced: The float network.
        units: Of it.
        choices: Each with the encoding of every node, by its name.
        images: Of the calibration, (N, C, H, W).
    """
    judges, _ = judges_and_others(len(images))
    with step("Judging ranges"):
        targets = float_logits(traced, images[judges])
        losses = [
            loss(_Activations(traced, units, encodings), images[judges], targets)
            for encodings in choices
        ]
    return losses.index(min(losses))


class _Activations:
    """The network with int8 activations and float weights."""

    def __init__(self, traced: GraphModule, units: Sequence[Unit], encodings: Encodings) -> None:
        self._network = (traced, units, encodings)

    def run(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits, (N, classes)."""
        return cast("torch.Tensor", _FloatWeights(*self._network, {}).run(images))


class _FloatWeights(Simulation):
    """Rounds activations only."""

    def parameters(self, n: Node, operands: Sequence[Any]) -> Rounded:  # noqa: ARG002
        """Return a layer's parameters as they are."""
        return Rounded(operands[1], operands[2])
