"""The margin of an int8 network: how near to half-way between two codes a result can come.

Input: a `Plan`. Output: the `Margin` of its input and of each int8 operator, in steps of the
operator's output. Runtimes whose own error is smaller round every result to the same code (see
`tie_free`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mobiledeploy.errors import ExportError
from mobiledeploy.quantization.encodings import (
    hardswish_values,
    pixel_values,
    sigmoid_steps,
    tie_distance,
)
from mobiledeploy.quantization.tie_free import float32_error, margin_of, steps_of
from mobiledeploy.stages import Margin

if TYPE_CHECKING:
    from mobiledeploy.graph.fused_ops import FusedOp
    from mobiledeploy.network import Preprocessing
    from mobiledeploy.quantization.plan import Plan
    from mobiledeploy.stages import Encoding

_EXACT = 0.5  # the distance of integers


def smallest_margin(plan: Plan, preprocessing: Preprocessing | None) -> Margin:
    """Return the smallest margin of a network, for inputs made from 8-bit pixels.

    Args:
        plan: The network's plan.
        preprocessing: As in `encodings.encode_input`.

    Raises:
        ExportError: a layer's margin is within float32's own error.
    """
    source = plan.encodings[plan.shared_encodings[0].nodes[0].name]
    pixels = Margin("input", tie_distance(pixel_values(preprocessing) / source.scale))
    _require_above_error(pixels, source, remedy="Choose another --mean or --std.")
    smallest = pixels
    for op in plan.ops:
        if op.name in plan.float_ops:
            continue
        found = Margin(op.layer, margin(plan, op))
        if op.kind != "pool":  # `encodings.scale_of_mean` has a bound of its own
            remedy = f"Keep the layer in float: --keep-float {op.layer}."
            _require_above_error(found, plan.encodings[op.output.name], remedy=remedy)
        smallest = min(smallest, found, key=lambda each: each.steps)
    return smallest


def _require_above_error(margin: Margin, encoding: Encoding, *, remedy: str) -> None:
    """Raise ExportError if float32's own error can reach half-way.

    Args:
        margin: The margin of a layer.
        encoding: The encoding of its results.
        remedy: How to mend it.
    """
    error = float32_error(steps_of(encoding.zero_point))
    if margin.steps < error:
        raise ExportError(
            f"Runtimes may round {margin.layer} differently: a result can be {margin.steps:.1e}"
            f" steps from half-way between two codes, and float32 errs by {error:.1e}.",
            remedy=remedy,
        )


def margin(plan: Plan, op: FusedOp) -> float:
    """Return the margin of one operator, in steps of its output."""
    inputs = [plan.encodings[node.name] for node in op.activations]
    output = plan.encodings[op.output.name]
    if op.has_weight:
        ratios = plan.scales[op.name].numpy() * np.float64(inputs[0].scale / output.scale)
        return margin_of(ratios, steps_of(output.zero_point))
    if op.kind == "multiply":
        ratio = inputs[0].scale * inputs[1].scale / output.scale
        return margin_of(np.array([ratio]), steps_of(output.zero_point))
    if op.kind == "hardswish":
        return tie_distance(hardswish_values(inputs[0]) / output.scale)
    if op.kind == "sigmoid":
        return tie_distance(sigmoid_steps(inputs[0]))
    if op.kind == "pool":
        height, width = op.activations[0].meta["val"].shape[-2:]
        sums = np.arange(-255 * height * width, 255 * height * width + 1)
        return tie_distance(sums * (inputs[0].scale / (output.scale * height * width)))
    return _EXACT
