"""Ranges of activations, and the encodings that follow from them.

Input: activation statistics. Output: a range (low, high) per shared encoding, and an `Encoding`
for each of them. Which ranges are best is decided by `range_search`, `mul_ranges`,
`learned_equalization` and `encoding_selection`.
Invariants: a range never reaches beyond the clamp of its activations, so that saturation performs
the clamp (except in a residual stream in which other tensors reach further: there the clamp stays);
the logits keep the whole range that was observed, because clipped logits tie; and no range is
narrower than XNNPACK accepts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

from mobiledeploy.errors import ExportError
from mobiledeploy.quantization.encodings import (
    LARGEST_REQUANTIZATION,
    REFUSED_REQUANTIZATION,
    SIGMOID,
    SIGMOID_SATURATES,
    encode_around,
    encode_before_hardswish,
    encode_before_sigmoid,
    encode_hardswish,
    encode_input,
    encode_pooled,
    encode_product,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mobiledeploy.graph.fused_ops import FusedOp
    from mobiledeploy.graph.shared_encodings import SharedEncoding
    from mobiledeploy.network import Preprocessing
    from mobiledeploy.quantization.plan import Plan
    from mobiledeploy.stages import ActivationStats, Encoding

Ranges: TypeAlias = Mapping[str, tuple[float, float]]
"""(low, high) by the name of the shared encoding."""


def widest_ranges(
    shared_encodings: Sequence[SharedEncoding], observed: Mapping[str, ActivationStats]
) -> dict[str, tuple[float, float]]:
    """Return the range of everything that was observed, inside the clamp, by shared encoding.

    Those of the outputs leave a margin for larger logits on unseen images.
    """
    ranges = {}
    for shared in shared_encodings:
        stats = [observed[node.name] for node in shared.nodes]
        low = min(float(s.minima.min()) for s in stats)
        high = max(float(s.maxima.max()) for s in stats)
        if shared.leaves_network:
            low, high = low * stats[0].margin, high * stats[0].margin
        ranges[shared.name] = (max(low, shared.clamp[0]), min(high, shared.clamp[1]))
    return ranges


def narrow(
    ranges: Ranges, factors: Mapping[str, float], least_widths: Mapping[str, float]
) -> dict[str, tuple[float, float]]:
    """Return each range, extended to zero, times its factor, but no narrower than its least width.

    Args:
        ranges: The ranges, by shared encoding.
        factors: A factor for each of them.
        least_widths: Least widths; 0 for those that are missing.
    """
    narrowed = {}
    for name, (lowest, highest) in ranges.items():
        low, high = factors[name] * min(lowest, 0.0), factors[name] * max(highest, 0.0)
        missing = least_widths.get(name, 0.0) - (high - low)
        narrowed[name] = (low, high + max(missing, 0.0))
    return narrowed


def learnable_encodings(
    ops: Sequence[FusedOp], shared_encodings: Sequence[SharedEncoding]
) -> frozenset[str]:
    """Return the names of the shared encodings whose range is free to choose.

    The input's range follows from the pixels, the logits must not be clipped, and the scales around
    a hard-swish and behind a multiplication or a pool follow from other scales.
    """
    name_of = {node: shared.name for shared in shared_encodings for node in shared.nodes}
    fixed = {shared_encodings[0].name}
    fixed |= {shared.name for shared in shared_encodings if shared.leaves_network}
    for op in ops:
        if op.kind in {"hardswish", "multiply", "pool", "sigmoid"}:
            fixed.add(name_of[op.output])
        if op.kind == "hardswish":
            fixed.add(name_of[op.activations[0]])
    return frozenset(shared.name for shared in shared_encodings if shared.name not in fixed)


def encode_ranges(
    ops: Sequence[FusedOp],
    shared_encodings: Sequence[SharedEncoding],
    ranges: Ranges,
    preprocessing: Preprocessing | None,
) -> dict[str, Encoding]:
    """Return the encodings of ranges, by shared encoding.

    Args:
        ops: Int8 operators of the network.
        shared_encodings: In topological order, because a pool's scale depends on its input's.
        ranges: (low, high) of each.
        preprocessing: As in `encodings.encode_input`.

    Raises:
        ExportError: a pool has too many elements to be exact in all runtimes.
    """
    name_of = {node: shared.name for shared in shared_encodings for node in shared.nodes}
    pools = {name_of[op.output]: op for op in ops if op.kind == "pool"}
    muls = {name_of[op.output]: op for op in ops if op.kind == "multiply"}
    hardswish_inputs = {
        name_of[op.output]: name_of[op.activations[0]] for op in ops if op.kind == "hardswish"
    }
    before_hardswish = set(hardswish_inputs.values())
    sigmoids = {name_of[op.output] for op in ops if op.kind == "sigmoid"}
    before_sigmoid = {name_of[op.activations[0]] for op in ops if op.kind == "sigmoid"}
    read_by_others = {
        name_of[node] for op in ops if op.kind != "sigmoid" for node in op.activations
    }
    input_name = shared_encodings[0].name
    encodings: dict[str, Encoding] = {}
    for shared in shared_encodings:
        name = shared.name
        low, high = ranges[name]
        if name == input_name:
            encodings[name] = encode_input(preprocessing)
        elif name in pools:
            (source,) = pools[name].activations
            height, width = source.meta["val"].shape[-2:]
            encodings[name] = encode_pooled(low, high, encodings[name_of[source]], height * width)
        elif name in muls:
            a, b = (encodings[name_of[node]] for node in muls[name].activations)
            encodings[name] = encode_product(low, high, a, b)
        elif name in hardswish_inputs:
            # Alone, it spans all results of its input; in a residual stream, the stream's range.
            span = None if len(shared.nodes) == 1 else (low, high)
            encodings[name] = encode_hardswish(encodings[hardswish_inputs[name]], span)
        elif name in before_hardswish:
            encodings[name] = encode_before_hardswish(high)
        elif name in sigmoids:
            encodings[name] = SIGMOID
        elif name in before_sigmoid:
            if name not in read_by_others:  # clipping there changes no code
                low, high = max(low, -SIGMOID_SATURATES), min(high, SIGMOID_SATURATES)
            encodings[name] = encode_before_sigmoid(low, high)
        else:
            bounds = [bound for op in ops if op.output in shared.nodes for bound in op.clamp or ()]
            encodings[name] = encode_around(low, high, bounds)
    return encodings


def least_widths(plan: Plan) -> dict[str, float]:
    """Return the least widths of ranges that XNNPACK accepts, by shared encoding.

    XNNPACK requantizes by s_x s_w / s_y, which must be below 256. It comes near 256 if an output
    was nearly dead in calibration, or if a channel's weights are hundreds of times the others'.
    """
    name_of = {node: shared.name for shared in plan.shared_encodings for node in shared.nodes}
    widths: dict[str, float] = {}
    for op in plan.layers:
        largest_scale = float(plan.scales[op.name].max())
        width = 255 * plan.input_scale(op) * largest_scale / LARGEST_REQUANTIZATION
        name = name_of[op.output]
        widths[name] = max(width, widths.get(name, 0.0))
    return widths


def require_requantizable(plan: Plan) -> None:
    """Raise if XNNPACK would refuse a layer whose range cannot be widened.

    Raises:
        ExportError: there are such layers; it names all of them.
    """
    refused = [
        op.layer
        for op in plan.int8_layers
        if plan.input_scale(op) * float(plan.scales[op.name].max())
        >= REFUSED_REQUANTIZATION * plan.encodings[op.output.name].scale
    ]
    if refused:
        names = ",".join(refused)
        raise ExportError(
            f"{', '.join(refused)} cannot be int8: XNNPACK refuses a layer whose sums have"
            f" {REFUSED_REQUANTIZATION:g} times the scale of its output or more.",
            remedy="Look in or before these layers for a channel whose weights are thousands of"
            " times the others', for example because its BatchNorm's variance is nearly zero; or"
            f" keep the layers in float: --keep-float {names}.",
        )
