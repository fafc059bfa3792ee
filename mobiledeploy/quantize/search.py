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

from mobiledeploy.parallel import channels_last, in_order, parts
from mobiledeploy.progress import track
from mobiledeploy.quantize.codes import on_codes
from mobiledeploy.quantize.sensitivity import probe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch.fx import GraphModule

    from mobiledeploy.graph import Site, Unit
    from mobiledeploy.types import Encoding

_FACTORS = (1.0, 0.85, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
_PROBES = 4


def search_factors(
    traced: GraphModule,
    units: Sequence[Unit],
    sites: Sequence[Site],
    encode: Callable[[Mapping[str, float]], Mapping[str, Encoding]],
    images: NDArray[np.float32],
) -> dict[str, float]:
    """Return, by site name, the factor a by which its widest range should be narrowed.

    Args:
        traced: The float network.
        units: Of it.
        sites: Of it.
        encode: Factors by site name -> encodings by site name.
        images: To judge on, (N, C, H, W).
    """
    candidates = [encode({site.name: factor for site in sites}) for factor in _FACTORS]
    additions = {unit.output for unit in units if unit.kind == "add"}
    moved = {unit.output for unit in units if unit.moves_values}
    members = {n: site.name for site in sites for n in site.nodes if n not in moved}

    def costs(few: slice) -> NDArray[np.float64]:
        """Return what each candidate costs each site on a few images: (sites, candidates)."""
        judged = channels_last(images[few])
        table = np.zeros((len(sites), len(_FACTORS)))
        row = {site.name: number for number, site in enumerate(sites)}
        for probed in probe(traced, list(members), judged, probes=_PROBES, seed=few.start):
            name = members[probed.node]
            for column, encodings in enumerate(candidates):
                error = _error(probed.value, encodings[name], only_clips=probed.node in additions)
                table[row[name], column] += probed.cost(error)
        return table

    all_of_them = parts(images, at_once=1)
    tracked = track(in_order(costs, all_of_them), "Choosing ranges", len(all_of_them))
    best = np.argmin(sum(tracked, start=np.zeros(1)), axis=1)
    return {
        site.name: _FACTORS[choice] if site is not sites[-1] else 1.0
        for site, choice in zip(sites, best, strict=True)
    }


def _error(value: torch.Tensor, encoding: Encoding, *, only_clips: bool) -> torch.Tensor:
    """Return what an encoding does to a tensor."""
    if only_clips:
        return value.clamp(encoding.low, encoding.high) - value
    return on_codes(value, encoding).sub_(value)
