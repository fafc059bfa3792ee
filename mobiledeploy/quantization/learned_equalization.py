"""Learned equalization: learn channel scales and activation ranges from the float logits.

Input: a `FoldedModel` from `equalize`, and a `CalibrationSet`. Output: a `FoldedModel` with other
channel scales, and ranges that were learned with them.
Maths: log s per channel and log a per range minimise the distillation loss (see `distillation`) of
the network with fake-quantized activations. x / s on codes of one step, read times s, is x on codes
of s steps, so s and a are widths of fake quantization, learned as in LSQ (Esser et al., "Learned
Step Size Quantization", 2020); weights stay float, because GPTQ removes most of their error later
(measured: decision record 0008).
It differs from cross-layer equalization in what decides: not the range of a channel, but how much
the logits depend on it. A channel that is scaled up is clipped more and rounded less. The scales
move by a factor of about 1.3 in all steps together. They are learned on images of half the height
and width, in a quarter of the time (measured: decision record 0023). `make_plan` decides whether
the learned ranges or newly searched ones are better.
Invariant: on the calibration images the float network's outputs stay equal, to float rounding. A
channel under a ReLU6 is never scaled up so far that it, or an unseen image within
`ActivationStats.margin`, would be clipped, and a channel that reaches 6 keeps its scale.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from mobiledeploy.graph.channel_groups import find_groups, rescale_all
from mobiledeploy.quantization.distillation import (
    BATCH,
    distillation_step,
    float_logits,
    shuffled_batches,
    split_hold_out,
)
from mobiledeploy.quantization.fake_quantize import FloatWeightNetwork, fake_quantize
from mobiledeploy.quantization.halved_images import halved
from mobiledeploy.quantization.make_plan import make_plan
from mobiledeploy.quantization.ranges import learnable_encodings
from mobiledeploy.stages import (
    CalibrationSet,
    FoldedModel,
    ObservedActivations,
    QuantRecipe,
    evenly_spread,
)
from mobiledeploy.utils.arguments import FOLD_FIRST, LOAD_IMAGES, require_instance
from mobiledeploy.utils.outputs import joined
from mobiledeploy.utils.progress import track
from mobiledeploy.utils.threads import on_one_thread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch.fx import Node

    from mobiledeploy.graph.channel_groups import ChannelGroup
    from mobiledeploy.quantization.plan import Plan
    from mobiledeploy.stages import Encoding

_STEPS = 48
_THOROUGH_STEPS = 72
_MOST_EPOCHS = 4  # more epochs of 32 images overfit: the loss on unseen images rises
_SCALE_RATE = 0.02
_WIDTH_RATE = 0.01


@on_one_thread
def learn_equalization(
    model: FoldedModel, calibration: CalibrationSet, *, thorough: bool = False
) -> FoldedModel:
    """Return an equalized model with learned channel scales and ranges.

    Every sixth image is held out, for the choice of ranges in `make_plan`.

    Args:
        model: From `equalize`; it stays as it is.
        calibration: Images to learn from.
        thorough: Take half as many steps again, and as much more time.

    Raises:
        ExportError: an operator has no int8 form.
        DataError: the calibration set is empty, or drives an activation to infinity or NaN.
    """
    require_instance(model, FoldedModel, "model", FOLD_FIRST)
    require_instance(calibration, CalibrationSet, "calibration", LOAD_IMAGES)
    plan = make_plan(model, calibration, QuantRecipe(), rough=True)
    groups = find_groups(plan.traced, plan.ops)
    student = _Student(plan, groups)
    if not student.parameters:
        return replace(model, equalization="learned")
    images = calibration.images
    hold_out, training = split_hold_out(len(images))
    images = images[training if len(training) else hold_out]
    most_steps = _THOROUGH_STEPS if thorough else _STEPS
    steps = min(most_steps, max(1, _MOST_EPOCHS * len(images) // BATCH))
    images = halved(images[evenly_spread(len(images), steps * BATCH)], plan.traced)
    targets = float_logits(plan.traced, images)
    batches = shuffled_batches(np.arange(len(images)), epochs=steps)[:steps]
    parameters = [
        {"params": student.log_scales, "lr": _SCALE_RATE},
        {"params": list(student.log_widths.values()), "lr": _WIDTH_RATE},
    ]
    parameters = [group for group in parameters if group["params"]]
    adam = torch.optim.Adam(parameters, betas=(0.9, 0.99), fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, len(batches))
    for batch in track(batches, "Learning equalization", len(batches)):
        distillation_step(student, adam, images[batch], targets[batch])
        student.project()
        schedule.step()
    scales = [scale.detach() for scale in student.scales()]
    rescaled = rescale_all(plan.traced, zip(groups, scales, strict=True), plan.observed)
    return replace(
        model,
        module=plan.traced,
        equalization="learned",
        ranges=student.ranges(),
        observations=ObservedActivations(module=plan.traced, images=calibration, by_node=rescaled),
    )


class _Student:
    """The network with fake-quantized activations and learnable channel scales and ranges.

    Attributes:
        log_scales: log s of every group, (channels,).
        log_widths: log of the factor of every learnable range, by shared encoding.
    """

    def __init__(self, plan: Plan, groups: Sequence[ChannelGroup]) -> None:
        self._plan = plan
        self._groups = groups
        self._limits = [_log_scale_limits(group, plan) for group in groups]
        learnable = learnable_encodings(plan.ops, plan.shared_encodings)
        self._clamps = {shared.name: shared.clamp for shared in plan.shared_encodings}
        self._most_widths = {
            name: _most_width(plan.encodings[name], self._clamps[name]) for name in learnable
        }
        self._shared_of = {
            node.name: shared.name
            for shared in plan.shared_encodings
            for node in shared.nodes
            if shared.name in learnable
        }
        self.log_scales = [torch.zeros_like(least).requires_grad_() for least, _ in self._limits]
        self.log_widths = {
            shared.name: torch.zeros(()).requires_grad_()
            for shared in plan.shared_encodings
            if shared.name in learnable
        }

    @property
    def parameters(self) -> list[torch.Tensor]:
        """Return log scales and log widths."""
        return [*self.log_scales, *self.log_widths.values()]

    def scales(self) -> list[torch.Tensor]:
        """Return s of every group, (channels,)."""
        return [log_scale.exp() for log_scale in self.log_scales]

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Return the learned ranges, inside their clamps, by shared encoding."""
        learned = {}
        for name, log_width in self.log_widths.items():
            encoding, width = self._plan.encodings[name], float(log_width.detach().exp())
            least, most = self._clamps[name]
            learned[name] = (max(encoding.low * width, least), min(encoding.high * width, most))
        return learned

    def project(self) -> None:
        """Clamp scales to where the float network's function stays, and ranges to their clamps."""
        with torch.no_grad():
            for log_scale, (least, most) in zip(self.log_scales, self._limits, strict=True):
                log_scale.clamp_(least, most)
            for name, log_width in self.log_widths.items():
                log_width.clamp_(max=math.log(self._most_widths[name]))

    def run(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits, (N, classes)."""
        widths = {node: self.log_widths[name].exp() for node, name in self._shared_of.items()}
        for group, scale in zip(self._groups, self.scales(), strict=True):
            widths |= {node.name: scale * widths.get(node.name, 1.0) for node in group.nodes}
        return joined(_RescaledNetwork(self._plan, widths).run(images))


def _most_width(encoding: Encoding, clamp: tuple[float, float]) -> float:
    """Return the largest factor by which a range can grow without passing its clamp."""
    sides = zip((encoding.low, encoding.high), clamp, strict=True)
    return max(1.0, min((bound / end for end, bound in sides if end), default=1.0))


def _log_scale_limits(group: ChannelGroup, plan: Plan) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the least and the largest log s per channel that keep the float function."""
    stats = [plan.observed[node.name] for node in group.nodes]
    high = torch.from_numpy(np.max([s.maxima.max(0) for s in stats], axis=0))
    if np.isinf(group.ceiling):
        return torch.full_like(high, -np.inf), torch.full_like(high, np.inf)
    least = (high * stats[0].margin / group.ceiling).clamp(1e-6, 1.0).log()
    clipped = high >= group.ceiling
    return least, torch.where(clipped, 0.0, np.inf)


class _RescaledNetwork(FloatWeightNetwork):
    """Runs a planned network with float weights and rescaled ranges.

    Args:
        plan: The network.
        widths: Factor of the range of an activation, or of each of its channels, by node name.
    """

    def __init__(self, plan: Plan, widths: Mapping[str, torch.Tensor]) -> None:
        super().__init__(plan)
        self._widths = widths

    def _quantize(self, node: Node, value: torch.Tensor) -> torch.Tensor:
        return fake_quantize(value, self._encodings[node.name], self._widths.get(node.name))
