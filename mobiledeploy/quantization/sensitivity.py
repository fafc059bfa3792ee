"""Which layers int8 costs most, and what keeping each in float would bring back."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, cast

import torch

from mobiledeploy.graph.aten_graph import parameter
from mobiledeploy.metrics import power_ratio_db
from mobiledeploy.quantization.fake_quantize import FakeQuantizedNetwork
from mobiledeploy.quantization.float_layers import float_ops, layer_name
from mobiledeploy.utils.progress import track
from mobiledeploy.utils.threads import batch_slices, channels_last, parallel_map

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch.fx import Node

    from mobiledeploy.graph.aten_graph import FusedOp
    from mobiledeploy.quantization.fake_quantize import Rounded
    from mobiledeploy.quantization.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSensitivity:
    """One layer: a convolution or linear operator with its activation.

    Attributes:
        name: Its module.
        kind: What it is: "depthwise", "convolution" or "linear".
        only_sqnr_db: Of the logits where this layer alone is int8.
        kept_sqnr_db: Of the logits where this layer alone is float.
        gain_db: By how much that is more than with every layer in int8.
        macs: Multiply-accumulates for one image.
        macs_share: Of the network's.
    """

    name: str
    kind: str
    only_sqnr_db: float
    kept_sqnr_db: float
    gain_db: float
    macs: int
    macs_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitivityReport:
    """All layers of a network.

    Attributes:
        network: Its name.
        int8_sqnr_db: Of the logits with every layer in int8.
        source: The images that were measured on.
        count: How many.
        calibration_source: Those that the network was calibrated with.
        layers: The one that makes most noise first.
    """

    network: str
    int8_sqnr_db: float
    source: str
    count: int
    calibration_source: str
    layers: tuple[LayerSensitivity, ...]

    def document(self) -> dict[str, object]:
        """Return what `--json` writes."""
        return {
            "schema": 1,
            "kind": "mobiledeploy.sensitivity",
            "network": self.network,
            "int8_sqnr_db": self.int8_sqnr_db,
            "images": {"source": self.source, "count": self.count},
            "calibration": self.calibration_source,
            "layers": [asdict(layer) for layer in self.layers],
        }


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
    layers = [op for op in planned.ops if op.has_weight]
    kept = [float_ops(planned.ops, {layer_name(op)}) for op in layers]
    choices = [frozenset[str](), *kept]
    int8_db, *kept_db = sqnrs_db(planned, rounded, images, choices, "Keeping each layer in float")
    only_db = sqnrs_db(planned, alone, images, _alone(planned), _EACH_ALONE)
    macs = [_macs(planned, op.operator) for op in layers]
    found = [
        LayerSensitivity(
            name=layer_name(op),
            kind=_kind(op),
            only_sqnr_db=only_db[i],
            kept_sqnr_db=kept_db[i],
            gain_db=kept_db[i] - int8_db,
            macs=macs[i],
            macs_share=macs[i] / sum(macs),
        )
        for i, op in enumerate(layers)
    ]
    return int8_db, tuple(sorted(found, key=lambda layer: layer.only_sqnr_db))


def noisiest_first(
    planned: Plan, alone: Mapping[str, Rounded], images: NDArray[np.float32]
) -> list[str]:
    """Return the names of all layers in the order of `measure_layers`, in half its time."""
    names = [layer_name(op) for op in planned.ops if op.has_weight]
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

    few = batch_slices(images, size=1)  # every activation of theirs is kept
    found = parallel_map(noises, few)
    if said is not None:
        found = track(found, said, len(few))
    signal, *sums = (sum(values) for values in zip(*found, strict=True))
    return [power_ratio_db(signal, noise) for noise in sums]


def _alone(planned: Plan) -> list[frozenset[str]]:
    """Return, for each layer, all units but that one."""
    everything = frozenset(op.operator.name for op in planned.ops)
    return [everything - {op.operator.name} for op in planned.ops if op.has_weight]


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
        self._logits = planned.ops[-1].output
        everything = frozenset(op.operator.name for op in planned.ops)
        self._known = {
            floating: self._simulation(floating).values(images)
            for floating in (frozenset[str](), everything)
        }
        self._exact = self._known[everything][self._logits].double()
        self.signal = float(self._exact.square().sum())

    def of(self, floating: frozenset[str]) -> float:
        """Return the squared error of the logits with these units (their operators) in float."""
        base = min(self._known, key=lambda known: len(known ^ floating))
        changed = {op.operator for op in self._planned.ops if op.operator.name in base ^ floating}
        stale = _descendants(changed)
        known = {n: value for n, value in self._known[base].items() if n not in stale}
        values = self._simulation(floating).values(self._images, known)
        return float((values[self._logits].double() - self._exact).square().sum())

    def _simulation(self, floating: Collection[str]) -> FakeQuantizedNetwork:
        planned = self._planned
        given = (planned.traced, planned.ops, planned.encodings, self._rounded)
        return FakeQuantizedNetwork(*given, floating, keep=True)


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


def _kind(layer: FusedOp) -> str:
    """Return "depthwise", "convolution" or "linear"."""
    args = layer.operator.args
    groups = args[6] if layer.kind == "convolution" and len(args) > 6 else 1
    return layer.kind if groups == 1 else "depthwise"


def _macs(planned: Plan, operator: Node) -> int:
    """Return the multiply-accumulates of a convolution or linear operator, for one image."""
    weight = parameter(planned.traced, operator.args[1])
    outputs = cast("Sequence[int]", operator.meta["val"].shape)
    return math.prod(outputs[1:]) * weight[0].numel()
