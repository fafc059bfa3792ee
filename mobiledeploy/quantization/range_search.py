"""Range search: choose activation ranges by their effect on the logits.

Input: a `PlanBuilder` and images. Output: a factor per shared encoding that narrows its widest
range. A narrow range clips, a wide one rounds coarsely.
Maths: for every shared encoding, over candidates [a low, a high],

    argmin_a  sum over images, and over its tensors x, of  |J_x (Q_a(x) - x)|^2

with J_x the Jacobian of the logits (see `hutchinson`). Each shared encoding is searched with the
others in float: to first order, independent errors add up.
Invariants: an addition inside a residual stream rounds nothing, so it is charged for clipping only;
the range of the logits is never narrowed, because clipped logits tie. Ranges of multiplications are
searched once more, with their quantized inputs (see `mul_ranges`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from mobiledeploy.quantization.fake_quantize import fake_quantize
from mobiledeploy.quantization.hutchinson import probe
from mobiledeploy.utils.progress import track
from mobiledeploy.utils.threads import batch_slices, channels_last, parallel_map

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mobiledeploy.quantization.plan_builder import PlanBuilder
    from mobiledeploy.stages import Encoding

_FACTORS = (1.0, 0.85, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
_PROBES = 4


def search_factors(builder: PlanBuilder, images: NDArray[np.float32]) -> dict[str, float]:
    """Return the factor by which each shared encoding's widest range should be narrowed.

    Args:
        builder: The float network and its widest ranges.
        images: Images to search on, (N, C, H, W).
    """
    candidates = [builder.build(builder.narrowed(factor)).encodings for factor in _FACTORS]
    additions = {op.output for op in builder.ops if op.kind == "add"}
    moved = {op.output for op in builder.ops if op.moves_values}
    row_of = {
        node: row
        for row, shared in enumerate(builder.shared_encodings)
        for node in shared.nodes
        if node not in moved
    }

    def costs(batch: slice) -> NDArray[np.float64]:
        """Return the cost of every candidate on a batch: (shared encodings, candidates)."""
        table = np.zeros((len(builder.shared_encodings), len(candidates)))
        batch_images = channels_last(images[batch])
        for probed in probe(
            builder.traced, list(row_of), batch_images, probes=_PROBES, seed=batch.start
        ):
            node = probed.node
            for column, encodings in enumerate(candidates):
                error = _error(probed.value, encodings[node.name], only_clips=node in additions)
                table[row_of[node], column] += probed.cost(error)
        return table

    batches = batch_slices(images, size=1)
    tables = track(parallel_map(costs, batches), "Searching ranges", len(batches))
    best = np.argmin(sum(tables, start=np.zeros(1)), axis=1)
    return {
        shared.name: 1.0 if shared.leaves_network else _FACTORS[choice]
        for shared, choice in zip(builder.shared_encodings, best, strict=True)
    }


def _error(value: torch.Tensor, encoding: Encoding, *, only_clips: bool) -> torch.Tensor:
    """Return the error that an encoding causes in a tensor."""
    if only_clips:
        return value.clamp(encoding.low, encoding.high) - value
    return fake_quantize(value, encoding).sub_(value)
