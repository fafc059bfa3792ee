"""What each layer's int8 does to the logits.

In: a `Plan` with rounded parameters, and images. Out: one `LayerSensitivity` per layer,

    only_sqnr     this layer in int8, all others in float     how much noise it makes by itself
    kept_sqnr     this layer in float, all others in int8     what keeping it would bring back

The two are not each other's complement. A layer that is kept still reads codes, and where an int8
layer reads its output it writes codes: alone, it saves the noise of its weights. The noise of an
activation goes when the layers on both of its sides are kept (see `float_layers`). So layers are
ranked by the noise that they make: as noise adds up, that says which several layers to keep
(measured: docs/decisions/0006).

Of a layer that is kept the others keep what they were rounded to, with every layer in int8. A layer
alone has a bias of its own: that of the whole network makes good for what rounding has done to the
layers before it, which here are float.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import torch

from mobiledeploy.graph import parameter
from mobiledeploy.parallel import channels_last, in_order, parts
from mobiledeploy.progress import track
from mobiledeploy.quantize.float_layers import float_units, layer_name
from mobiledeploy.quantize.simulate import Simulation
from mobiledeploy.types import LayerSensitivity

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch.fx import Node

    from mobiledeploy.graph import Unit
    from mobiledeploy.quantize.in_sequence import Rounded
    from mobiledeploy.quantize.prepare import Plan

_EACH_ALONE = "Measuring each layer alone in int8"


def measure_layers(
    planned: Plan,
    rounded: Mapping[str, Rounded],
    alone: Mapping[str, Rounded],
    images: NDArray[np.float32],
) -> tuple[float, tuple[LayerSensitivity, ...]]:
    """Return the SQNR of the logits with every layer in int8, and the layers, noisiest first.

    Args:
        planned: The network.
        rounded: Every layer's parameters, with all in int8.
        alone: The same with each layer alone in int8.
        images: (N, C, H, W).
    """
    layers = [unit for unit in planned.units if unit.has_weight]
    kept = [float_units(planned.units, {layer_name(unit)}) for unit in layers]
    choices = [frozenset[str](), *kept]
    int8_db, *kept_db = sqnrs_db(planned, rounded, images, choices, "Keeping each layer in float")
    only_db = sqnrs_db(planned, alone, images, _alone(planned), _EACH_ALONE)
    macs = [_macs(planned, unit.operator) for unit in layers]
    found = [
        LayerSensitivity(
            name=layer_name(unit),
            kind=_kind(unit),
            only_sqnr_db=only_db[i],
            kept_sqnr_db=kept_db[i],
            gain_db=kept_db[i] - int8_db,
            macs=macs[i],
            macs_share=macs[i] / sum(macs),
        )
        for i, unit in enumerate(layers)
    ]
    return int8_db, tuple(sorted(found, key=lambda layer: layer.only_sqnr_db))


def noisiest_first(
    planned: Plan, alone: Mapping[str, Rounded], images: NDArray[np.float32]
) -> list[str]:
    """Return the names of all layers in the order of `measure_layers`, in half its time."""
    names = [layer_name(unit) for unit in planned.units if unit.has_weight]
    found = sqnrs_db(planned, alone, images, _alone(planned), _EACH_ALONE)
    return [name for _, name in sorted(zip(found, names, strict=True), key=lambda pair: pair[0])]


def sqnrs_db(
    planned: Plan,
    rounded: Mapping[str, Rounded],
    images: NDArray[np.float32],
    choices: Sequence[frozenset[str]],
    said: str | None = None,
) -> list[float]:
    """Return the SQNR of the logits for each choice of units (their operators) in float.

    Progress is shown under what is said, or not at all.
    """

    def noises(part: slice) -> list[float]:
        noise = Noise(planned, rounded, channels_last(images[part]))
        return [noise.signal, *(noise.of(floating) for floating in choices)]

    few = parts(images, at_once=1)  # every activation of theirs is kept
    found = in_order(noises, few)
    if said is not None:
        found = track(found, said, len(few))
    signal, *sums = (sum(values) for values in zip(*found, strict=True))
    return [_ratio_db(signal, noise) for noise in sums]


def _alone(planned: Plan) -> list[frozenset[str]]:
    """Return, for each layer, all units but that one."""
    everything = frozenset(unit.operator.name for unit in planned.units)
    return [everything - {unit.operator.name} for unit in planned.units if unit.has_weight]


class Noise:
    """Noise of a few images' logits, for any choice of float units.

    What a choice shares with the network that is all float, or all int8, is not computed again.

    Attributes:
        signal: Sum of the float logits' squares.
    """

    def __init__(self, planned: Plan, rounded: Mapping[str, Rounded], images: torch.Tensor) -> None:
        self._planned = planned
        self._rounded = rounded
        self._images = images
        self._logits = planned.units[-1].output
        everything = frozenset(unit.operator.name for unit in planned.units)
        self._known = {
            floating: self._simulation(floating).values(images)
            for floating in (frozenset[str](), everything)
        }
        self._exact = self._known[everything][self._logits].double()
        self.signal = float(self._exact.square().sum())

    def of(self, floating: frozenset[str]) -> float:
        """Return the squared error of the logits with these units (their operators) in float."""
        base = min(self._known, key=lambda known: len(known ^ floating))
        changed = {
            unit.operator for unit in self._planned.units if unit.operator.name in base ^ floating
        }
        stale = _descendants(changed)
        known = {n: value for n, value in self._known[base].items() if n not in stale}
        values = self._simulation(floating).values(self._images, known)
        return float((values[self._logits].double() - self._exact).square().sum())

    def _simulation(self, floating: Collection[str]) -> Simulation:
        planned = self._planned
        given = (planned.traced, planned.units, planned.encodings, self._rounded)
        return Simulation(*given, floating, keep=True)


def _descendants(nodes: Iterable[Node]) -> set[Node]:
    """Return the nodes and all that is computed from them."""
    found: set[Node] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += node.users
    return found


def _kind(layer: Unit) -> str:
    """Return "depthwise", "convolution" or "linear"."""
    args = layer.operator.args
    groups = args[6] if layer.kind == "convolution" and len(args) > 6 else 1
    return layer.kind if groups == 1 else "depthwise"


def _macs(planned: Plan, operator: Node) -> int:
    """Return the multiply-accumulates of a convolution or linear operator, for one image."""
    weight = parameter(planned.traced, operator.args[1])
    outputs = cast("Sequence[int]", operator.meta["val"].shape)
    return math.prod(outputs[1:]) * weight[0].numel()


def _ratio_db(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf
