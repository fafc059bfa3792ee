"""Observers: run images through the float graph and record its activations.

Input: a traced graph and a `CalibrationSet`. Output: `ActivationStats` per tensor, the minimum and
maximum of every image and channel.
Invariant: nothing is decided here; equalization and the choice of ranges draw the conclusions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

import numpy as np
import torch

from mobiledeploy.errors import DataError
from mobiledeploy.stages import ActivationStats
from mobiledeploy.utils.progress import track
from mobiledeploy.utils.threads import batch_slices, channels_last, parallel_map

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray
    from torch.fx import GraphModule, Node

    from mobiledeploy.stages import CalibrationSet, FoldedModel

T = TypeVar("T")
Extremes: TypeAlias = "tuple[NDArray[np.float32], NDArray[np.float32]]"


class Recorder(torch.fx.Interpreter, Generic[T]):
    """Runs a graph and keeps something of the values of chosen nodes.

    Args:
        traced: The graph.
        nodes: The nodes to record.
        keep: What to keep of a value (N, C, ...), for example its extremes.

    Attributes:
        records: What was kept in the last run, by node.
    """

    def __init__(
        self, traced: GraphModule, nodes: Iterable[Node], keep: Callable[[torch.Tensor], T]
    ) -> None:
        super().__init__(traced)
        self._nodes = frozenset(nodes)
        self._keep = keep
        self.records: dict[Node, T] = {}

    def run_node(self, n: Node) -> object:
        """Return a node's value, recording it if the node was chosen."""
        value = super().run_node(n)
        if n in self._nodes:
            self.records[n] = self._keep(value)
        return value


def observe_cached(
    model: FoldedModel, traced: GraphModule, nodes: Iterable[Node], calibration: CalibrationSet
) -> Mapping[str, ActivationStats]:
    """Return the statistics that the model carries for these images, or observe them.

    Args:
        model: The model that `traced` was traced from.
        traced: The graph.
        nodes: The nodes to observe.
        calibration: The images.

    Raises:
        DataError: see `observe`.
    """
    known = model.observations
    if known is not None and known.module is model.module and known.images is calibration:
        return known.by_node
    return observe(traced, nodes, calibration)


def observe(
    traced: GraphModule, nodes: Iterable[Node], calibration: CalibrationSet
) -> Mapping[str, ActivationStats]:
    """Run the calibration images and return the statistics of nodes, by node name.

    Raises:
        DataError: there are no images, or an activation is not finite.
    """
    if calibration.count == 0:
        raise DataError(
            "The calibration set is empty; expected at least one image.",
            remedy="Give --calib-data a folder or file with images.",
        )
    nodes = dict.fromkeys(nodes)  # each node once, in order
    batches = [calibration.images[batch] for batch in batch_slices(calibration.images)]

    def extremes(images: NDArray[np.float32]) -> dict[Node, Extremes]:
        recorder = Recorder(traced, nodes, _extremes)
        recorder.run(channels_last(images))
        return recorder.records

    records = list(track(parallel_map(extremes, batches), "Calibrating", len(batches)))
    observed = {
        node.name: ActivationStats(
            np.concatenate([record[node][0] for record in records]),
            np.concatenate([record[node][1] for record in records]),
        )
        for node in nodes
    }
    for name, stats in observed.items():
        if not np.isfinite([stats.minima.min(), stats.maxima.max()]).all():
            raise DataError(
                f"The activation {name} is infinite or NaN on the calibration images.",
                remedy="Check the weights for NaN, and the preprocessing (--mean, --std).",
            )
    return observed


def _extremes(value: torch.Tensor) -> Extremes:
    """Return minima and maxima over height and width, each (images, channels)."""
    pixels = value.movedim(1, -1).reshape(len(value), -1, value.shape[1])
    return pixels.amin(1).numpy(), pixels.amax(1).numpy()
