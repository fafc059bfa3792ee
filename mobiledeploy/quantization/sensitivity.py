"""Sensitivity: the noise that each layer adds in int8, and what it gains if kept in float.

Input: a `Plan`, rounded weights and images. Output: the layers' sensitivity, the noisiest first.
Maths: SQNR = |f(x) - mean f|^2 / |f_q(x) - f(x)|^2 over all logits of all images, in dB, of the
fake-quantized network with one layer alone in int8, and with all layers but one in int8. `mean f`
is that of each output over the images (`metrics.sqnr_db`).
Invariant: squares are summed over all images before the ratio is formed.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from mobiledeploy.errors import DataError
from mobiledeploy.graph.nodes import groups_of, outputs_of, parameter
from mobiledeploy.metrics import power_ratio_db, signal_power, varies
from mobiledeploy.quantization.fake_quantize import FakeQuantizedNetwork
from mobiledeploy.utils.outputs import joined
from mobiledeploy.utils.progress import track
from mobiledeploy.utils.threads import batch_slices, channels_last, parallel_map

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch.fx import Node

    from mobiledeploy.graph.fused_ops import FusedOp
    from mobiledeploy.quantization.fake_quantize import LayerWeights
    from mobiledeploy.quantization.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSensitivity:
    """One layer: a convolution or linear operator with its activation.

    Attributes:
        name: Name of its module.
        kind: "depthwise", "convolution" or "linear".
        only_sqnr_db: SQNR of the logits with this layer alone in int8.
        kept_sqnr_db: SQNR of the logits with this layer alone in float.
        gain_db: How much higher that is than with every layer in int8.
        macs: Multiply-accumulates per image.
        macs_share: Share of the network's multiply-accumulates.
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
    """The sensitivity of all layers of a network.

    Attributes:
        network: Name of the network.
        int8_sqnr_db: SQNR of the logits with every layer in int8.
        source: Where the images that were measured on came from.
        count: Number of these images.
        calibration_source: Where the calibration images came from.
        layers: The layers, the noisiest first.
    """

    network: str
    int8_sqnr_db: float
    source: str
    count: int
    calibration_source: str
    layers: tuple[LayerSensitivity, ...]

    def document(self) -> dict[str, object]:
        """Return the JSON document that `--json` writes."""
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
    plan: Plan,
    rounded: Mapping[str, LayerWeights],
    rounded_alone: Mapping[str, LayerWeights],
    images: NDArray[np.float32],
) -> tuple[float, tuple[LayerSensitivity, ...]]:
    """Return the SQNR of the all-int8 network in dB, and its layers, the noisiest first.

    Args:
        plan: The network with every layer in int8.
        rounded: Weights of every layer, rounded together.
        rounded_alone: Weights of every layer, each rounded as if it were the only int8 layer.
        images: Images to measure on, (N, C, H, W).
    """
    kept = [plan.with_float_layers({op.layer}).float_ops for op in plan.layers]
    choices = [frozenset[str](), *kept]
    int8_db, *kept_db = measure_sqnr(plan, rounded, images, choices, "Keeping each layer in float")
    only_db = measure_sqnr(plan, rounded_alone, images, _all_but_each_layer(plan), _EACH_ALONE)
    macs = [_macs(plan, op.operator) for op in plan.layers]
    found = [
        LayerSensitivity(
            name=op.layer,
            kind=_kind(op),
            only_sqnr_db=only_db[i],
            kept_sqnr_db=kept_db[i],
            gain_db=kept_db[i] - int8_db,
            macs=macs[i],
            macs_share=macs[i] / sum(macs),
        )
        for i, op in enumerate(plan.layers)
    ]
    return int8_db, tuple(sorted(found, key=lambda layer: layer.only_sqnr_db))


def rank_by_noise(
    plan: Plan, rounded_alone: Mapping[str, LayerWeights], images: NDArray[np.float32]
) -> list[str]:
    """Return the names of all layers in the order of `measure_layers`, in half its time."""
    names = [op.layer for op in plan.layers]
    found = measure_sqnr(plan, rounded_alone, images, _all_but_each_layer(plan), _EACH_ALONE)
    return [name for _, name in sorted(zip(found, names, strict=True), key=lambda pair: pair[0])]


def measure_sqnr(
    plan: Plan,
    rounded: Mapping[str, LayerWeights],
    images: NDArray[np.float32],
    choices: Sequence[frozenset[str]],
    label: str | None = None,
) -> list[float]:
    """Return the SQNR of the logits in dB for each choice of float operators.

    Args:
        plan: The network.
        rounded: Weights of its int8 layers.
        images: Images to measure on, (N, C, H, W).
        choices: Names of the operators that compute in float, per choice.
        label: Label of the progress bar; None shows none.

    Raises:
        DataError: the logits are the same for all images, or there is only one.
    """

    def powers(batch: slice) -> tuple[NDArray[np.float64], list[float]]:
        noise = LogitNoise(plan, rounded, channels_last(images[batch]))
        return noise.exact.numpy(), [noise.power(float_ops) for float_ops in choices]

    batches = batch_slices(images, size=1)  # small, because every activation is kept
    found = parallel_map(powers, batches)
    if label is not None:
        found = track(found, label, len(batches))
    logits, noises = zip(*found, strict=True)
    exact = np.concatenate(logits)
    if not varies(exact):
        raise DataError(
            f"The float logits are the same for all {len(exact)} images: noise has no signal to be"
            " compared with.",
            remedy="Measure on two or more different images.",
        )
    signal = signal_power(exact)
    return [power_ratio_db(signal, sum(noise)) for noise in zip(*noises, strict=True)]


def _all_but_each_layer(plan: Plan) -> list[frozenset[str]]:
    """Return, for each layer, the names of all operators but its own."""
    everything = frozenset(op.name for op in plan.ops)
    return [everything - {op.name} for op in plan.layers]


class LogitNoise:
    """Noise of the logits of a batch for any choice of float operators.

    Values that a choice shares with the all-float or the all-int8 network are not computed again.

    Args:
        plan: The network.
        rounded: Weights of its int8 layers.
        images: The batch, (N, C, H, W).

    Attributes:
        exact: Float logits, (N, classes).
    """

    def __init__(
        self, plan: Plan, rounded: Mapping[str, LayerWeights], images: torch.Tensor
    ) -> None:
        self._plan = plan
        self._rounded = rounded
        self._images = images
        self._outputs = outputs_of(plan.traced.graph)
        everything = frozenset(op.name for op in plan.ops)
        self._known = {
            float_ops: self._network(float_ops).values(images)
            for float_ops in (frozenset[str](), everything)
        }
        self.exact = self._joined(self._known[everything])

    def power(self, float_ops: frozenset[str]) -> float:
        """Return the sum of the squared errors of the logits with these operators in float."""
        base = min(self._known, key=lambda known: len(known ^ float_ops))
        changed = {op.operator for op in self._plan.ops if op.name in base ^ float_ops}
        stale = _descendants(changed)
        known = {n: value for n, value in self._known[base].items() if n not in stale}
        values = self._network(float_ops).values(self._images, known)
        return float((self._joined(values) - self.exact).square().sum())

    def _joined(self, values: Mapping[Node, torch.Tensor]) -> torch.Tensor:
        return joined([values[node] for node in self._outputs]).double()

    def _network(self, float_ops: frozenset[str]) -> FakeQuantizedNetwork:
        plan = replace(self._plan, float_ops=float_ops)
        return FakeQuantizedNetwork(plan, self._rounded, keep=True)


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
    return "depthwise" if groups_of(layer.operator) > 1 else layer.kind


def _macs(plan: Plan, operator: Node) -> int:
    """Return the multiply-accumulates of a convolution or linear operator per image."""
    weight = parameter(plan.traced, operator.args[1])
    outputs = cast("Sequence[int]", operator.meta["val"].shape)
    return math.prod(outputs[1:]) * weight[0].numel()
