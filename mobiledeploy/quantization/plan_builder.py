"""Turn ranges of activations into a `Plan`.

Input: a `FoldedModel` and calibration images, then ranges by shared encoding. Output: plans of the
same network with other encodings and weight scales.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mobiledeploy.graph.aten_graph import trace
from mobiledeploy.graph.fused_ops import find_fused_ops, weight_and_bias
from mobiledeploy.graph.observers import observe_cached
from mobiledeploy.graph.shared_encodings import find_shared_encodings
from mobiledeploy.quantization.ranges import encode_ranges, least_widths, narrow, widest_ranges
from mobiledeploy.quantization.weight_rounding import weight_scales
from mobiledeploy.utils.progress import step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.fx import GraphModule

    from mobiledeploy.graph.fused_ops import FusedOp
    from mobiledeploy.graph.shared_encodings import SharedEncoding
    from mobiledeploy.network import Preprocessing
    from mobiledeploy.quantization.ranges import Ranges
    from mobiledeploy.stages import ActivationStats, CalibrationSet, FoldedModel

from mobiledeploy.quantization.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanBuilder:
    """The float network before its ranges are chosen; turns ranges into plans.

    Attributes:
        traced: The float network as a flat ATen graph.
        ops: Its int8 operators, in topological order.
        shared_encodings: Its groups of activations that share one encoding.
        observed: Activation statistics on the calibration images, by node name.
        widest: Ranges (low, high) of everything that was observed, by shared encoding.
        preprocessing: How an app makes the input from pixels, which decides its encoding; None if
            the input is the pixels.
        least_widths: Least width of a range that runtimes accept, by shared encoding.
    """

    traced: GraphModule
    ops: tuple[FusedOp, ...]
    shared_encodings: tuple[SharedEncoding, ...]
    observed: Mapping[str, ActivationStats]
    widest: Ranges
    preprocessing: Preprocessing | None
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
            preprocessing=model.info.input.app_preprocessing,
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
                *weight_and_bias(self.traced, op),
                encodings[op.activations[0].name].scale,
                encodings[op.output.name],
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
