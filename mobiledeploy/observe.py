"""Watch activations while images pass through the float graph.

In: a traced graph and a `CalibrationSet`. Out: per tensor, every image's minimum and maximum in
every channel. Nothing is decided here: equalization and the choice of ranges draw their
conclusions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from mobiledeploy.errors import DataError
from mobiledeploy.progress import track

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray
    from torch.fx import GraphModule, Node

    from mobiledeploy.types import CalibrationSet

# Four images in channels-last order keep the early, wide layers inside the caches: three times
# faster than sixteen at once.
_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Observed:
    """What one tensor showed.

    Attributes:
        minima: (images, channels), over height and width.
        maxima: Likewise.
    """

    minima: NDArray[np.float32]
    maxima: NDArray[np.float32]

    @property
    def margin(self) -> float:
        """How much further, as a factor, images may reach that were not seen: 1 + 3 / sqrt(n).

        Measured, not derived: docs/decisions/0007.
        """
        return float(1 + 3 / np.sqrt(len(self.maxima)))


def observe(
    traced: GraphModule, nodes: Iterable[Node], calibration: CalibrationSet
) -> Mapping[str, Observed]:
    """Run the calibration images and return what the nodes showed, by node name.

    Raises:
        DataError: there are no images, or an activation is not finite.
    """
    if calibration.count == 0:
        raise DataError("The calibration set is empty.", remedy="Give --calib-data some images.")
    watcher = _Watcher(traced, nodes)
    with torch.no_grad():
        for batch in track(calibration.batches, "Calibrating", len(calibration.batches)):
            for few in torch.split(torch.from_numpy(batch), _AT_ONCE):
                watcher.run(few.to(memory_format=torch.channels_last))
    for name, seen in watcher.observed.items():
        if not np.isfinite([seen.minima.min(), seen.maxima.max()]).all():
            raise DataError(
                f"The activation {name} is not finite on the calibration images.",
                remedy="Check the weights for NaN, and the preprocessing (--mean, --std).",
            )
    return watcher.observed


class _Watcher(torch.fx.Interpreter):
    """Runs the graph and keeps each watched node's extremes, not its values."""

    def __init__(self, traced: GraphModule, watched: Iterable[Node]) -> None:
        super().__init__(traced)
        self._minima: dict[Node, list[torch.Tensor]] = {node: [] for node in watched}
        self._maxima: dict[Node, list[torch.Tensor]] = {node: [] for node in self._minima}

    def run_node(self, n: Node) -> object:
        value = super().run_node(n)
        if n in self._minima:
            tensor = cast("torch.Tensor", value)
            pixels = tensor.movedim(1, -1).reshape(len(tensor), -1, tensor.shape[1])
            self._minima[n].append(pixels.amin(1))
            self._maxima[n].append(pixels.amax(1))
        return value

    @property
    def observed(self) -> dict[str, Observed]:
        """Return everything seen so far, by node name."""
        return {
            node.name: Observed(
                torch.cat(self._minima[node]).numpy(), torch.cat(self._maxima[node]).numpy()
            )
            for node in self._minima
        }
