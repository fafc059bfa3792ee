"""The margin of an int8 network: how near to half-way between two codes a result can come.

Input: a `Plan`. Output: the `Margin` of its input and of each int8 operator, in steps of the
operator's output. Runtimes whose own error is smaller round every result to the same code (see
`tie_free`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mobiledeploy.errors import ExportError
from mobiledeploy.network import Margin
from mobiledeploy.quantization.encodings import (
    hardswish_values,
    pixel_values,
    sigmoid_steps,
    tie_distance,
)
from mobiledeploy.quantization.tie_free import FLOAT32_ERROR, margin_of

if TYPE_CHECKING:
    from mobiledeploy.graph.aten_graph import FusedOp
    from mobiledeploy.network import Preprocessing
    from mobiledeploy.quantization.plan import Plan

_EXACT = 0.5  # the distance of integers


def smallest_margin(plan: Plan, preprocessing: Preprocessing) -> Margin:
    """Return the smallest margin of a network, for inputs made from 8-bit pixels.

    Raises:
        ExportError: a layer's margin is within float32's own error.
    """
    input_encoding = plan.encodings[plan.shared_encodings[0].nodes[0].name]
    margins = [Margin("input", tie_distance(pixel_values(preprocessing) / input_encoding.scale))]
    margins += [Margin(op.layer, margin(plan, op)) for op in plan.ops if _is_int8(plan, op)]
    smallest = min(margins, key=lambda margin: margin.steps)
    pools = {op.layer for op in plan.ops if op.kind == "pool"}
    for each in margins:
        # `encodings.scale_of_mean` has a bound of its own.
        if each.steps < FLOAT32_ERROR and each.layer not in pools:
            raise ExportError(
                f"Runtimes may round {each.layer} differently: a result can be {each.steps:.1e}"
                f" steps from half-way between two codes, and float32 errs by {FLOAT32_ERROR:.1e}.",
                remedy="Choose another --mean or --std."
                if each.layer == "input"
                else f"Keep the layer in float: --keep-float {each.layer}.",
            )
    return smallest


def margin(plan: Plan, op: FusedOp) -> float:
    """Return the margin of one operator, in steps of its output."""
    inputs = [plan.encodings[node.name] for node in op.activations]
    output = plan.encodings[op.output.name]
    if op.has_weight:
        return margin_of(plan.scales[op.name].numpy() * np.float64(inputs[0].scale / output.scale))
    if op.kind == "multiply":
        return margin_of(np.array([inputs[0].scale * inputs[1].scale / output.scale]))
    if op.kind == "hardswish":
        return tie_distance(hardswish_values(inputs[0]) / output.scale)
    if op.kind == "sigmoid":
        return tie_distance(sigmoid_steps(inputs[0]))
    if op.kind == "pool":
        height, width = op.activations[0].meta["val"].shape[-2:]
        sums = np.arange(-255 * height * width, 255 * height * width + 1)
        return tie_distance(sums * (inputs[0].scale / (output.scale * height * width)))
    return _EXACT


def _is_int8(plan: Plan, op: FusedOp) -> bool:
    return op.name not in plan.float_ops
