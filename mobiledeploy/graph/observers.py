"""Watch activations while images pass through the float graph.

In: a traced graph and a `CalibrationSet`. Out: per tensor, every image's minimum and maximum in
every channel. Nothing is decided here: equalization and the choice of ranges draw their
conclusions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
import torch

from mobiledeploy.errors import DataError
from mobiledeploy.network import ActivationStats
from mobiledeploy.utils.progress import track
from mobiledeploy.utils.threads import channels_last, in_order, parts

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from numpy.typing import NDArray
    from torch.fx import GraphModule, Node

    from mobiledeploy.network import CalibrationSet, FoldedModel

Extremes: TypeAlias = "tuple[NDArray[np.float32], NDArray[np.float32]]"


def known_or_observe(
    model: FoldedModel, traced: GraphModule, nodes: Iterable[Node], calibration: CalibrationSet
) -> Mapping[str, ActivationStats]:
    """Return what the model's activations showed on these images, watching them if need be.

    Args:
        model: What `traced` was traced from.
        traced: The graph.
        nodes: Of it.
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
    """Run the calibration images and return what the nodes showed, by node name.

    Raises:
        DataError: there are no images, or an activation is not finite.
    """
    if calibration.count == 0:
        raise DataError("The calibration set is empty.", remedy="Give --calib-data some images.")
    few = [calibration.images[part] for part in parts(calibration.images)]
    watched = dict.fromkeys(nodes)  # in order, each once
    extremes = in_order(lambda images: _extremes(traced, watched, images), few)
    seen = list(track(extremes, "Calibrating", len(few)))
    observed = {
        node.name: ActivationStats(
            np.concatenate([part[node][0] for part in seen]),
            np.concatenate([part[node][1] for part in seen]),
        )
        for node in watched
    }
    for name, tensor in observed.items():
        if not np.isfinite([tensor.minima.min(), tensor.maxima.max()]).all():
            raise DataError(
                f"The activation {name} is not finite on the calibration images.",
                remedy="Check the weights for NaN, and the preprocessing (--mean, --std).",
            )
    return observed


def _extremes(
    traced: GraphModule, watched: Collection[Node], images: NDArray[np.float32]
) -> dict[Node, Extremes]:
    """Return the watched nodes' minima and maxima, each (images, channels)."""
    watcher = _Observer(traced, watched)
    watcher.run(channels_last(images))
    return watcher.extremes


class _Observer(torch.fx.Interpreter):
    """Runs the graph and keeps each watched node's extremes, not its values."""

    def __init__(self, traced: GraphModule, watched: Collection[Node]) -> None:
        super().__init__(traced)
        self._watched = watched
        self.extremes: dict[Node, Extremes] = {}

    def run_node(self, n: Node) -> object:
        value = super().run_node(n)
        if n in self._watched:
            tensor = cast("torch.Tensor", value)
            pixels = tensor.movedim(1, -1).reshape(len(tensor), -1, tensor.shape[1])
            self.extremes[n] = (pixels.amin(1).numpy(), pixels.amax(1).numpy())
        return value
