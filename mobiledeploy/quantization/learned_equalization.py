"""Learn how far each channel is scaled, and each range reaches, from what that does to the logits.

Equalization makes channels even: each gets as much of the int8 range as it needs to be seen whole.
But the logits depend on some channels more than on others, and some reach far only in images where
it does not matter. Starting from even channels, x / s gets an s that makes the quantized logits
nearest to the float ones (see `descent`), with

- activations on the encodings that the network would get now, ranges searched: a channel that is
  scaled up is clipped more and rounded less;
- ranges learned along with the factors, as factors of their widths: the two belong together, and
  `prepare` decides whether these or ranges searched once more are better;
- weights in float, since what rounding does to them is mostly cancelled afterwards (measured:
  decision record 0008);
- log s learned, by hundredths: a factor times or divided by 1.3 or so, over all steps.

Invariant: on the calibration images the float network's outputs stay what they are, to float
rounding: a channel under a ReLU6 is never scaled up so far that it, or what unseen images may bring
(`ActivationStats.margin`), would be cut off, and one that reaches 6 is left alone.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from mobiledeploy.graph.aten_graph import find_shared_encodings
from mobiledeploy.graph.channel_groups import find_groups, rescale_all
from mobiledeploy.network import ObservedActivations, QuantRecipe, evenly_spread
from mobiledeploy.quantization.bias_correction import Unrounded
from mobiledeploy.quantization.distillation import (
    BATCH,
    distill,
    float_logits,
    shuffled_batches,
    split_hold_out,
)
from mobiledeploy.quantization.encodings import learnable_encodings
from mobiledeploy.quantization.fake_quantize import fake_quantize
from mobiledeploy.quantization.plan import plan
from mobiledeploy.utils.progress import track
from mobiledeploy.utils.threads import on_one_thread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch.fx import Node

    from mobiledeploy.graph.channel_groups import ChannelGroup
    from mobiledeploy.network import CalibrationSet, Encoding, FoldedModel
    from mobiledeploy.quantization.plan import Plan

_STEPS = 48
_THOROUGH_STEPS = 72
_MOST_EPOCHS = 4  # of 32 images more would be learned than unseen ones show
_FACTOR_RATE = 0.02
_WIDTH_RATE = 0.01


@on_one_thread
def learn_equalization(
    model: FoldedModel, calibration: CalibrationSet, *, thorough: bool = False
) -> FoldedModel:
    """Return an equalized model with every channel group rescaled to what the logits ask for.

    Every sixth image is left out, to judge the ranges that come with it.

    Args:
        model: From `equalize`.
        calibration: To learn from.
        thorough: Take half as many steps again, and the time.

    Raises:
        ExportError: the network holds an operator without an int8 form.
        DataError: the calibration set is empty, or drives an activation to infinity or NaN.
    """
    planned = plan(model, calibration, QuantRecipe())
    groups = find_groups(planned.traced, planned.ops)
    student = _Student(planned, groups)
    if not student.parameters:
        return replace(model, equalization="learned")
    images = calibration.images
    judges, others = split_hold_out(len(images))
    images = images[others if len(others) else judges]
    wanted = _THOROUGH_STEPS if thorough else _STEPS
    steps = min(wanted, max(1, _MOST_EPOCHS * len(images) // BATCH))
    images = images[evenly_spread(len(images), steps * BATCH)]
    targets = float_logits(planned.traced, images)
    batches = shuffled_batches(np.arange(len(images)), epochs=steps)[:steps]
    rates = [
        {"params": student.logs_of_factors, "lr": _FACTOR_RATE},
        {"params": list(student.logs_of_widths.values()), "lr": _WIDTH_RATE},
    ]
    rates = [rate for rate in rates if rate["params"]]
    adam = torch.optim.Adam(rates, betas=(0.9, 0.99), fused=True)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(adam, len(batches))
    for chosen in track(batches, "Learning factors", len(batches)):
        distill(student, adam, images[chosen], targets[chosen])
        student.keep_function()
        decay.step()
    factors = [factor.detach() for factor in student.factors()]
    shown = rescale_all(planned.traced, zip(groups, factors, strict=True), planned.observed)
    return replace(
        model,
        module=planned.traced,
        equalization="learned",
        ranges=student.ranges(),
        observations=ObservedActivations(module=planned.traced, images=calibration, by_node=shown),
    )


class _Student:
    """The network with activations as quantized; factors and widths of ranges can be learned.

    Attributes:
        logs_of_factors: log s of every group, (channels,).
        logs_of_widths: log of what a site's range is multiplied by, by the site's name.
    """

    def __init__(self, planned: Plan, groups: Sequence[ChannelGroup]) -> None:
        self._planned = planned
        self._groups = groups
        self._limits = [_limits(group, planned) for group in groups]
        shared_encodings = find_shared_encodings(planned.traced, planned.ops)
        learnable = learnable_encodings(planned.ops, shared_encodings)
        self._clamps = {shared.name: shared.clamp for shared in shared_encodings}
        self._widest = {
            name: _room(planned.by_shared_encoding[name], self._clamps[name]) for name in learnable
        }
        self._site_of = {
            node.name: shared.name
            for shared in shared_encodings
            for node in shared.nodes
            if shared.name in learnable
        }
        self.logs_of_factors = [
            torch.zeros_like(least).requires_grad_() for least, _ in self._limits
        ]
        self.logs_of_widths = {
            shared.name: torch.zeros(()).requires_grad_()
            for shared in shared_encodings
            if shared.name in learnable
        }

    @property
    def parameters(self) -> list[torch.Tensor]:
        """Return what is learned."""
        return [*self.logs_of_factors, *self.logs_of_widths.values()]

    def factors(self) -> list[torch.Tensor]:
        """Return s of every group, (channels,)."""
        return [logarithms.exp() for logarithms in self.logs_of_factors]

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Return the ranges as learned, inside the site's clamp, by the site's name."""
        learned = {}
        for name, logarithm in self.logs_of_widths.items():
            encoding, width = (
                self._planned.by_shared_encoding[name],
                float(logarithm.detach().exp()),
            )
            least, most = self._clamps[name]
            learned[name] = (max(encoding.low * width, least), min(encoding.high * width, most))
        return learned

    def keep_function(self) -> None:
        """Take the factors back to where the float network computes what it did.

        And ranges to what a clamp lets through: codes beyond it would say nothing.
        """
        with torch.no_grad():
            for logarithms, (least, most) in zip(self.logs_of_factors, self._limits, strict=True):
                logarithms.clamp_(least, most)
            for name, logarithm in self.logs_of_widths.items():
                logarithm.clamp_(max=math.log(self._widest[name]))

    def run(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits, (N, classes).

        The weights are left as they are: x / s on codes of one step, and read times s, is x on
        codes of s steps each.
        """
        widths = {node: self.logs_of_widths[shared].exp() for node, shared in self._site_of.items()}
        for group, factor in zip(self._groups, self.factors(), strict=True):
            widths |= {node.name: factor * widths.get(node.name, 1.0) for node in group.nodes}
        return cast("torch.Tensor", _Widened(self._planned, widths).run(images))


def _room(encoding: Encoding, clamp: tuple[float, float]) -> float:
    """Return how many times as wide a range may become before it reaches beyond its clamp."""
    sides = zip((encoding.low, encoding.high), clamp, strict=True)
    return max(1.0, min((bound / reached for reached, bound in sides if reached), default=1.0))


def _limits(group: ChannelGroup, planned: Plan) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the least and the most log s per channel that keep the float network's function."""
    seen = [planned.observed[node.name] for node in group.nodes]
    high = torch.from_numpy(np.max([tensor.maxima.max(0) for tensor in seen], axis=0))
    if np.isinf(group.ceiling):
        return torch.full_like(high, -np.inf), torch.full_like(high, np.inf)
    least = (high * seen[0].margin / group.ceiling).clamp(1e-6, 1.0).log()
    clipped = high >= group.ceiling
    return least, torch.where(clipped, 0.0, np.inf)


class _Widened(Unrounded):
    """Runs the network with float weights, and with ranges wider or narrower than planned.

    Args:
        planned: The network.
        widths: What the range of an activation, or of each of its channels, is multiplied by, by
            node name.
    """

    def __init__(self, planned: Plan, widths: Mapping[str, torch.Tensor]) -> None:
        super().__init__(planned.traced, planned.ops, planned.encodings, {})
        self._widths = widths

    def _coded(self, node: Node, value: torch.Tensor) -> torch.Tensor:
        return fake_quantize(value, self._encodings[node.name], self._widths.get(node.name))
