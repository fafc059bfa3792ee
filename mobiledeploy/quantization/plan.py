"""Choose the encodings of all activations and the scales of all weights.

    trace -> observe -> search ranges -> select encodings -> Plan

Input: a `FoldedModel`, calibration images, a recipe. Output: a `Plan`, the float network with the
encodings and scales that it will be quantized with.
Invariant: the weights stay as they are; `round_layers` rounds them and `quantize` writes them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from mobiledeploy.graph.aten_graph import (
    find_fused_ops,
    find_shared_encodings,
    trace,
    weight_and_bias,
)
from mobiledeploy.graph.observers import observe_cached
from mobiledeploy.network import evenly_spread
from mobiledeploy.quantization.distillation import split_hold_out
from mobiledeploy.quantization.encoding_selection import select_encodings
from mobiledeploy.quantization.float_layers import find_float_ops
from mobiledeploy.quantization.mul_ranges import fit_mul_ranges, probe_muls
from mobiledeploy.quantization.range_search import search_factors
from mobiledeploy.quantization.ranges import encode_ranges, least_widths, narrow, widest_ranges
from mobiledeploy.quantization.weight_rounding import weight_scales
from mobiledeploy.utils.progress import step

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import torch
    from numpy.typing import NDArray
    from torch.fx import GraphModule

    from mobiledeploy.graph.aten_graph import FusedOp, SharedEncoding
    from mobiledeploy.network import (
        ActivationStats,
        CalibrationSet,
        Encoding,
        FoldedModel,
        Preprocessing,
        QuantRecipe,
    )
    from mobiledeploy.quantization.ranges import Ranges

# Images that ranges are searched on: 16 of 224x224, more of smaller ones.
_SEARCH_PIXELS = 16 * 224**2
_LEAST_SEARCH_IMAGES, _MOST_SEARCH_IMAGES = 8, 128
# With fewer images, a hold-out set of every sixth is too small to tell two candidates apart.
_LEAST_FOR_HOLD_OUT = 96


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The float network and how it will be encoded.

    Attributes:
        traced: The float network as a flat ATen graph.
        ops: Its int8 operators, in topological order.
        shared_encodings: Its groups of activations that share one encoding.
        observed: Activation statistics on the calibration images, by node name.
        encodings: Encoding of every activation, by node name.
        scales: Weight scales (out,), by operator name.
        float_ops: Names of the operators that compute in float.
    """

    traced: GraphModule
    ops: tuple[FusedOp, ...]
    shared_encodings: tuple[SharedEncoding, ...]
    observed: Mapping[str, ActivationStats]
    encodings: Mapping[str, Encoding]
    scales: Mapping[str, torch.Tensor]
    float_ops: frozenset[str] = frozenset()

    @property
    def layers(self) -> tuple[FusedOp, ...]:
        """Return the operators with weights, in topological order."""
        return tuple(op for op in self.ops if op.has_weight)

    @property
    def int8_layers(self) -> tuple[FusedOp, ...]:
        """Return the operators with weights that compute in int8."""
        return tuple(op for op in self.layers if op.name not in self.float_ops)

    def input_scale(self, op: FusedOp) -> float:
        """Return the scale of an operator's first input."""
        return self.encodings[op.activations[0].name].scale

    def with_float_layers(self, names: Collection[str]) -> Plan:
        """Return the plan with these layers, and what follows them, in float."""
        return replace(self, float_ops=find_float_ops(self.ops, names))


def make_plan(model: FoldedModel, calibration: CalibrationSet, recipe: QuantRecipe) -> Plan:
    """Choose all encodings and weight scales, with every operator in int8.

    Raises:
        ExportError: an operator has no int8 form.
        DataError: the calibration set is empty, or drives an activation to infinity or NaN.
    """
    builder = PlanBuilder.of(model, calibration)
    return _choose_ranges(builder, recipe, calibration.images, model.ranges)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanBuilder:
    """The float network before its ranges are chosen; turns ranges into plans.

    Attributes:
        traced: The float network as a flat ATen graph.
        ops: Its int8 operators, in topological order.
        shared_encodings: Its groups of activations that share one encoding.
        observed: Activation statistics on the calibration images, by node name.
        widest: Ranges (low, high) of everything that was observed, by shared encoding.
        preprocessing: Preprocessing of the input, which decides the input's encoding.
        least_widths: Least width of a range that runtimes accept, by shared encoding.
    """

    traced: GraphModule
    ops: tuple[FusedOp, ...]
    shared_encodings: tuple[SharedEncoding, ...]
    observed: Mapping[str, ActivationStats]
    widest: Ranges
    preprocessing: Preprocessing
    least_widths: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, model: FoldedModel, calibration: CalibrationSet) -> PlanBuilder:
        """Trace a model and observe its activations.

        Raises:
            ExportError: an operator has no int8 form.
            DataError: the calibration set is empty, or drives an activation to infinity or NaN.
        """
        with step("Tracing the network"):
            traced = trace(model)
            ops = find_fused_ops(traced)
            shared_encodings = find_shared_encodings(traced, ops)
        nodes = [node for shared in shared_encodings for node in shared.nodes]
        observed = observe_cached(model, traced, nodes, calibration)
        builder = cls(
            traced=traced,
            ops=ops,
            shared_encodings=shared_encodings,
            observed=observed,
            widest=widest_ranges(shared_encodings, observed),
            preprocessing=model.info.preprocessing,
        )
        return builder.with_least_widths()

    def with_least_widths(self) -> PlanBuilder:
        """Return the builder with the widths that runtimes ask for.

        A wider range has a coarser scale, which widens what the next operators need: iterate.
        """
        builder, plan = self, self.build(self.narrowed(1.0))
        for _ in self.ops:
            builder = replace(self, least_widths=least_widths(plan))
            before, plan = plan, builder.build(builder.narrowed(1.0))
            if plan.encodings == before.encodings:
                break
        return builder

    def narrowed(self, factors: float | Mapping[str, float]) -> dict[str, tuple[float, float]]:
        """Return the widest ranges times one factor, or times a factor per shared encoding."""
        if isinstance(factors, float):
            factors = dict.fromkeys(self.widest, factors)
        return narrow(self.widest, factors, self.least_widths)

    def build(self, ranges: Ranges) -> Plan:
        """Return the plan with the encodings that follow from ranges, by shared encoding."""
        by_name = encode_ranges(self.ops, self.shared_encodings, ranges, self.preprocessing)
        encodings = {
            node.name: by_name[shared.name]
            for shared in self.shared_encodings
            for node in shared.nodes
        }
        scales = {
            op.name: weight_scales(
                *weight_and_bias(self.traced, op), encodings[op.activations[0].name].scale
            )
            for op in self.ops
            if op.has_weight
        }
        return Plan(
            traced=self.traced,
            ops=self.ops,
            shared_encodings=self.shared_encodings,
            observed=self.observed,
            encodings=encodings,
            scales=scales,
        )


def _choose_ranges(
    builder: PlanBuilder, recipe: QuantRecipe, images: NDArray[np.float32], learned: Ranges
) -> Plan:
    """Return the plan with the ranges that the recipe asks for.

    Candidates are searched and learned ranges, each with and without refitted multiplications. The
    hold-out images choose among them; with too few images there is only one candidate.
    """
    if recipe.range_rule == "minmax":
        return builder.build(builder.narrowed(1.0))
    has_hold_out = len(images) >= _LEAST_FOR_HOLD_OUT
    hold_out, training = split_hold_out(len(images))
    training_images = images[training] if has_hold_out else images
    count = int(
        np.clip(_SEARCH_PIXELS // images.shape[-1] ** 2, _LEAST_SEARCH_IMAGES, _MOST_SEARCH_IMAGES)
    )
    search_images = training_images[evenly_spread(len(training_images), count)]
    searched = builder.narrowed(search_factors(builder, search_images))
    muls = probe_muls(builder.traced, builder.ops, search_images)
    if not has_hold_out:
        return builder.build(fit_mul_ranges(builder, muls, searched))
    learned = narrow(learned, dict.fromkeys(learned, 1.0), builder.least_widths)
    ranges = [searched, searched | learned] if learned else [searched]
    if muls.ops:
        ranges += [fit_mul_ranges(builder, muls, each) for each in ranges]
    candidates = [builder.build(each) for each in ranges]
    if len(candidates) == 1:
        return candidates[0]
    return select_encodings(candidates, images[hold_out], search_images)
