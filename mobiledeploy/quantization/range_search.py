"""Choose ranges for what they do to the logits.

A range that is too narrow clips, one that is too wide rounds coarsely. For every site, of the
candidates [a low, a high],

    argmin_a  sum over images, and over the tensors x of the site, of  |J_x (Q_a(x) - x)|^2

where J_x is the Jacobian of the logits with respect to x (see `sensitivity`). Sites are judged one
by one, the others in float: to first order the errors of different sites add up as noise does.

Tensors of a residual stream share an encoding; an addition of two of them rounds nothing, so it is
charged for what it clips only. The logits' own range is never narrowed: clipped logits tie.
Products are judged once more, with the codes that they are made of (see `products`).
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
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch.fx import GraphModule

    from mobiledeploy.graph.aten_graph import FusedOp, SharedEncoding
    from mobiledeploy.network import Encoding

_FACTORS = (1.0, 0.85, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
_PROBES = 4


def search_factors(
    traced: GraphModule,
    ops: Sequence[FusedOp],
    shared_encodings: Sequence[SharedEncoding],
    encode: Callable[[Mapping[str, float]], Mapping[str, Encoding]],
    images: NDArray[np.float32],
) -> dict[str, float]:
    """Return, by site name, the factor a by which its widest range should be narrowed.

    Args:
        traced: The float network.
        ops: Of it.
        shared_encodings: Of it.
        encode: Factors by site name -> encodings by site name.
        images: To judge on, (N, C, H, W).
    """
    candidates = [
        encode({shared.name: factor for shared in shared_encodings}) for factor in _FACTORS
    ]
    additions = {op.output for op in ops if op.kind == "add"}
    moved = {op.output for op in ops if op.moves_values}
    members = {
        n: shared.name for shared in shared_encodings for n in shared.nodes if n not in moved
    }

    def costs(few: slice) -> NDArray[np.float64]:
        """Return what each candidate costs each site on a few images: (sites, candidates)."""
        judged = channels_last(images[few])
        table = np.zeros((len(shared_encodings), len(_FACTORS)))
        row = {shared.name: number for number, shared in enumerate(shared_encodings)}
        for probed in probe(traced, list(members), judged, probes=_PROBES, seed=few.start):
            name = members[probed.node]
            for column, encodings in enumerate(candidates):
                error = _error(probed.value, encodings[name], only_clips=probed.node in additions)
                table[row[name], column] += probed.cost(error)
        return table

    all_of_them = batch_slices(images, size=1)
    tracked = track(parallel_map(costs, all_of_them), "Choosing ranges", len(all_of_them))
    best = np.argmin(sum(tracked, start=np.zeros(1)), axis=1)
    return {
        shared.name: _FACTORS[choice] if shared is not shared_encodings[-1] else 1.0
        for shared, choice in zip(shared_encodings, best, strict=True)
    }


def _error(value: torch.Tensor, encoding: Encoding, *, only_clips: bool) -> torch.Tensor:
    """Return what an encoding does to a tensor."""
    if only_clips:
        return value.clamp(encoding.low, encoding.high) - value
    return fake_quantize(value, encoding).sub_(value)
