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

from mobiledeploy.graph.aten_graph import weight_and_bias
from mobiledeploy.quantization.bias_correction import round_with_bias_correction
from mobiledeploy.quantization.distillation import float_logits, loss, split_hold_out
from mobiledeploy.quantization.fake_quantize import FakeQuantizedNetwork, Rounded
from mobiledeploy.utils.progress import step

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch.fx import GraphModule, Node

    from mobiledeploy.graph.aten_graph import FusedOp
    from mobiledeploy.network import Encoding

    Encodings = Mapping[str, Encoding]


def select_encodings(
    traced: GraphModule,
    ops: Sequence[FusedOp],
    choices: Sequence[Encodings],
    images: NDArray[np.float32],
    correcting: NDArray[np.float32],
) -> int:
    """Return the number of the choice with the least loss.

    Args:
        traced: The float network.
        ops: Of it.
        choices: Each with the encoding of every node, by its name.
        images: Of the calibration, (N, C, H, W).
        correcting: Others of them, to correct biases with.
    """
    judges, _ = split_hold_out(len(images))
    with step("Judging ranges"):
        targets = float_logits(traced, images[judges])
        losses = []
        for encodings in choices:
            parameters = _parameters(traced, ops, encodings, correcting)
            network = _Candidate(traced, ops, encodings, parameters)
            losses.append(loss(network, images[judges], targets))
    return losses.index(min(losses))


def _parameters(
    traced: GraphModule, ops: Sequence[FusedOp], encodings: Encodings, images: NDArray[np.float32]
) -> Mapping[str, Rounded]:
    """Return every layer's float weight, and its bias: corrected where products are."""
    layers = [op for op in ops if op.has_weight]
    if not any(op.kind == "multiply" for op in ops):
        return {op.operator.name: Rounded(*weight_and_bias(traced, op)) for op in layers}
    scales = {op.operator.name: torch.ones(()) for op in layers}
    return round_with_bias_correction(traced, ops, encodings, scales, images, _left_alone)


def _left_alone(
    _node: Node, weight: torch.Tensor, _scales: torch.Tensor, _inputs: Sequence[torch.Tensor]
) -> torch.Tensor:
    return weight


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A network whose activations are on codes; several threads may run it."""

    traced: GraphModule
    ops: Sequence[FusedOp]
    encodings: Encodings
    parameters: Mapping[str, Rounded]

    def run(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits, (N, classes)."""
        simulation = FakeQuantizedNetwork(self.traced, self.ops, self.encodings, self.parameters)
        return cast("torch.Tensor", simulation.run(images))
