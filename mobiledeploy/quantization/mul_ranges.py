"""Ranges of multiplications (of squeeze-and-excitation), given the encodings of their inputs.

Input: the float network, images, and ranges of all other activations. Output: the ranges of the
multiplications' outputs.
Maths: of many widths, the one with the least

    sum over images of |J (e - mean e)|^2,    e = Q_y(Q_x(x) Q_g(g)) - x g

with J the Jacobian of the logits (see `hutchinson`). The mean per channel is left out, because bias
correction removes it.
Why: a multiplication is rounded from codes, q_y = round(q_x q_g s_x s_g / s_y). If a gate g hardly
varies, this is one map from codes to codes; if the map merges codes, or puts every second one on a
rounding tie, all positions err to one side. How much depends on the ratio of the scales, and not
monotonically: with the last gate of V3-Small near 1/2, 0.8, 1.2 and 2 times a width that gave
25.0 dB gave 24.9, 22.4 and 15.9 dB. A search with float inputs cannot see this (decision record
0012).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from mobiledeploy.quantization.fake_quantize import fake_quantize
from mobiledeploy.quantization.hutchinson import Probe, probe
from mobiledeploy.utils.progress import track
from mobiledeploy.utils.threads import batch_slices, channels_last, parallel_map

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch.fx import GraphModule, Node

    from mobiledeploy.graph.fused_ops import FusedOp
    from mobiledeploy.quantization.plan_builder import PlanBuilder
    from mobiledeploy.quantization.ranges import Ranges
    from mobiledeploy.stages import Encoding

    Encodings = Mapping[str, Encoding]

WIDTHS = tuple(1.05**step for step in sorted(range(-20, 5), key=abs))
"""Candidates, as factors of the widest range: 5 % apart from 0.38 to 1.22; 1 first, so it wins."""
_PROBES = 4


@dataclass(frozen=True, slots=True)
class MulProbes:
    """The multiplications of a network and their values on a few images.

    Attributes:
        ops: The multiplications.
        hardswish_inputs: Input of each hard-swish that a multiplication reads, by its output.
        batches: Probes by node for each batch: of inputs, in float, and of multiplications.
    """

    ops: tuple[FusedOp, ...]
    hardswish_inputs: Mapping[Node, Node]
    batches: tuple[Mapping[Node, Probe], ...]

    def cheapest(self, candidates: Sequence[Encodings]) -> dict[Node, int]:
        """Return the index of the candidate with the least cost, by multiplication.

        Args:
            candidates: Encodings by node name; only those of the multiplications differ. Of equal
                ones the first wins.
        """

        def cheapest(op: FusedOp) -> int:
            costs = [self.cost(op, encodings) for encodings in candidates]
            return costs.index(min(costs))

        outputs = [op.output for op in self.ops]
        return dict(zip(outputs, parallel_map(cheapest, self.ops), strict=True))

    def cost(self, op: FusedOp, encodings: Encodings) -> float:
        """Return the squared change of the logits, summed over the images."""
        encoding = encodings[op.output.name]
        errors = []
        for probes in self.batches:
            a, b = (self._quantized(node, probes, encodings) for node in op.activations)
            errors.append(fake_quantize(a * b, encoding).sub_(probes[op.output].value))
        by_image = [error.reshape(*error.shape[:2], -1).mean(2) for error in errors]
        mean = torch.cat(by_image).mean(0).view(-1, *[1] * (errors[0].dim() - 2))
        return sum(
            probes[op.output].cost(error - mean)
            for probes, error in zip(self.batches, errors, strict=True)
        )

    def _quantized(
        self, node: Node, probes: Mapping[Node, Probe], encodings: Encodings
    ) -> torch.Tensor:
        """Return an input of a multiplication, fake-quantized like the inputs of its hard-swish."""
        value = probes[node].value
        if node in self.hardswish_inputs:
            before = self.hardswish_inputs[node]
            value = F.hardswish(fake_quantize(probes[before].value, encodings[before.name]))
        return fake_quantize(value, encodings[node.name])


def probe_muls(
    traced: GraphModule, ops: Sequence[FusedOp], images: NDArray[np.float32]
) -> MulProbes:
    """Return the network's multiplications and their values on images.

    Args:
        traced: The float network.
        ops: Its int8 operators.
        images: Images to search on, (N, C, H, W).
    """
    muls = tuple(op for op in ops if op.kind == "multiply")
    inputs = {node for op in muls for node in op.activations}
    hardswish_inputs = {
        op.output: op.activations[0] for op in ops if op.kind == "hardswish" and op.output in inputs
    }
    outputs = {op.output for op in muls}
    recorded = outputs | inputs | set(hardswish_inputs.values())
    nodes = [node for node in traced.graph.nodes if node in recorded]

    def probe_batch(batch: slice) -> dict[Node, Probe]:
        batch_images = channels_last(images[batch])
        probes = probe(traced, nodes, batch_images, probes=_PROBES, seed=batch.start)
        # Gradients take four times the memory of values, and only the outputs' are needed.
        return {p.node: p if p.node in outputs else replace(p, gradients=()) for p in probes}

    if not muls:
        return MulProbes((), {}, ())
    batches = batch_slices(images, size=1)
    probed = track(parallel_map(probe_batch, batches), "Probing multiplications", len(batches))
    return MulProbes(muls, hardswish_inputs, tuple(probed))


def fit_mul_ranges(
    builder: PlanBuilder, muls: MulProbes, ranges: Ranges
) -> dict[str, tuple[float, float]]:
    """Return the ranges with those of the multiplications fitted to their inputs' encodings.

    Args:
        builder: The float network and its widest ranges.
        muls: Its multiplications.
        ranges: Ranges of all activations, by shared encoding.
    """
    outputs = {op.output for op in muls.ops}
    name_of = {
        node: shared.name
        for shared in builder.shared_encodings
        for node in shared.nodes
        if node in outputs
    }
    candidates = []
    for width in WIDTHS if name_of else ():
        at_width = builder.narrowed(width)
        candidates.append({**ranges, **{name: at_width[name] for name in name_of.values()}})
    best = muls.cheapest([builder.build(candidate).encodings for candidate in candidates])
    fitted = {name_of[node]: candidates[index][name_of[node]] for node, index in best.items()}
    return {**ranges, **fitted}
