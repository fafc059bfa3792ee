"""Watch activations while images pass through the float graph.

In: the traced graph, its sites, a `CalibrationSet`. Out: per site, each image's minimum and maximum.
Nothing is decided here: `ranges` turns what was seen into encodings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from mobiledeploy.errors import DataError
from mobiledeploy.progress import track

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from torch.fx import GraphModule, Node

    from mobiledeploy.quantize.graph import Site
    from mobiledeploy.types import CalibrationSet


# Four images in channels-last order keep the early, wide layers inside the caches: three times
# faster than sixteen at once.
_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Observed:
    """What one site showed.

    Attributes:
        minima, maxima: Per image, over all elements of all tensors at the site; shape (images,).
    """

    minima: NDArray[np.float64]
    maxima: NDArray[np.float64]


def observe(
    traced: GraphModule, sites: Sequence[Site], calibration: CalibrationSet
) -> Mapping[str, Observed]:
    """Run the calibration images and return, by site name, each image's extremes.

    Raises:
        DataError: there are no images, or an activation is not finite.
    """
    if calibration.count == 0:
        raise DataError("The calibration set is empty.", remedy="Give --calib-data some images.")
    watcher = _Watcher(traced, [node for site in sites for node in site.nodes])
    with torch.no_grad():
        for batch in track(calibration.batches, "Calibrating", len(calibration.batches)):
            for few in torch.from_numpy(batch).split(_AT_ONCE):
                watcher.run(few.to(memory_format=torch.channels_last))
    observed = {
        site.name: Observed(
            np.min([watcher.minima(node) for node in site.nodes], axis=0),
            np.max([watcher.maxima(node) for node in site.nodes], axis=0),
        )
        for site in sites
    }
    for name, seen in observed.items():
        if not np.isfinite([seen.minima, seen.maxima]).all():
            raise DataError(
                f"The activation {name} is not finite on the calibration images.",
                remedy="Check the weights for NaN, and the preprocessing (--mean, --std).",
            )
    return observed


class _Watcher(torch.fx.Interpreter):
    """Runs the graph and keeps each watched node's extremes per image, not its values."""

    def __init__(self, traced: GraphModule, watched: Sequence[Node]) -> None:
        super().__init__(traced)
        self._extremes: dict[Node, list[tuple[torch.Tensor, ...]]] = {node: [] for node in watched}

    def run_node(self, n: Node) -> object:
        value = super().run_node(n)
        if n in self._extremes:
            extremes = [image.movedim(0, -1).aminmax() for image in value]
            self._extremes[n].append(tuple(torch.stack(e) for e in zip(*extremes, strict=True)))
        return value

    def minima(self, node: Node) -> NDArray[np.float64]:
        """Return the node's minimum per image."""
        return torch.cat([low for low, _ in self._extremes[node]]).double().numpy()

    def maxima(self, node: Node) -> NDArray[np.float64]:
        """Return the node's maximum per image."""
        return torch.cat([high for _, high in self._extremes[node]]).double().numpy()
