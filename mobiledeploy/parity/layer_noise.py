"""Measure the quantization noise of each layer: what it adds, and what it gets from its inputs.

Input: the equalized float network, the integer reference of the int8 network, images. Output: one
`LayerNoise` per fused operator, in topological order. Per layer, with float the float network's
output, int8 the integer reference's (dequantized), and exact the float layer on int8's inputs:

    sqnr      = sum float^2 / sum (float - int8)^2      all noise up to here
    own sqnr  = sum exact^2 / sum (exact - int8)^2      the noise of this layer alone
    sqnr drop = sqnr of its noisiest input - sqnr       in dB

Both networks see the same images. Sums run over all images before a ratio is formed. Of the logits
only what varies between the images is signal (`metrics.sqnr_db`); of other layers everything is,
because the next layer reads it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from mobiledeploy.graph.aten_graph import trace
from mobiledeploy.graph.fused_ops import find_fused_ops
from mobiledeploy.graph.nodes import outputs_of
from mobiledeploy.metrics import power_ratio_db, signal_power, varies
from mobiledeploy.parity.batches import in_batches
from mobiledeploy.parity.layer_codes import LAYER_IMAGES
from mobiledeploy.parity.types import LayerNoise
from mobiledeploy.utils.outputs import joined
from mobiledeploy.utils.progress import track

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch.fx import GraphModule, Node

    from mobiledeploy.graph.fused_ops import FusedOp
    from mobiledeploy.quantization.integer_reference import IntegerReference
    from mobiledeploy.stages import FoldedModel

    Images = NDArray[np.float32]

MIN_OWN_SQNR_DB = 6.0
"""Below this, half of the layer's signal is its own noise. Trained networks stay above 10 dB."""

_IMAGES = "<images>"  # stands for the network's input among the names of operators


def measure_layer_noise(
    reference: IntegerReference, equalized: FoldedModel, images: Images
) -> tuple[LayerNoise, ...]:
    """Measure the quantization noise of each layer.

    Args:
        reference: The integer reference of the int8 network.
        equalized: The float network that it was quantized from.
        images: (N, C, H, W); the first `LAYER_IMAGES` are used.

    Returns:
        One result per layer, in topological order.
    """
    traced = trace(equalized)
    (source,) = traced.graph.find_nodes(op="placeholder")
    titles = {operator.name: operator.title for operator in reference.operators.values()}
    noise = _NoiseMeter(traced, find_fused_ops(traced), titles)
    batches = in_batches(images[:LAYER_IMAGES])
    for batch in track(batches, "Comparing layers with float", len(batches)):
        int8 = {
            reference.operators[name].name: layer.real
            for name, layer in reference.layers(batch).items()
        }
        # a stem that is kept in float gets the images as they are
        int8[_IMAGES] = int8.pop(source.name, batch)
        noise.add(batch, int8)
    return noise.results()


def first_noisy(layers: Sequence[LayerNoise]) -> str:
    """Return the first layer whose own noise is too high (`MIN_OWN_SQNR_DB`); "" if none is."""
    return next((layer.name for layer in layers if layer.own_sqnr_db < MIN_OWN_SQNR_DB), "")


@dataclass(slots=True)
class _Sums:
    """Sums of squares of one tensor, over all batches.

    Attributes:
        logits: Of the logits, float_ and exact of every batch.
    """

    signal: float = 0.0
    noise: float = 0.0
    own_signal: float = 0.0
    own_noise: float = 0.0
    logits: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)

    def add(
        self, float_: torch.Tensor, exact: torch.Tensor, int8: torch.Tensor, *, are_logits: bool
    ) -> None:
        self.signal += float(float_.double().square().sum())
        self.noise += float((float_.double() - int8).square().sum())
        self.own_signal += float(exact.double().square().sum())
        self.own_noise += float((exact.double() - int8).square().sum())
        if are_logits:
            self.logits.append((float_, exact))

    @property
    def sqnr_db(self) -> float:
        return self._ratio(0, self.signal, self.noise)

    @property
    def own_sqnr_db(self) -> float:
        return self._ratio(1, self.own_signal, self.own_noise)

    def _ratio(self, side: int, signal: float, noise: float) -> float:
        """Return an SQNR; NaN for logits that do not vary."""
        if not self.logits:
            return power_ratio_db(signal, noise)
        values = np.concatenate([joined(batch[side]).numpy() for batch in self.logits])
        return power_ratio_db(signal_power(values), noise) if varies(values) else math.nan


@dataclass(slots=True)
class _NoiseMeter:
    """Sums the noise of every layer, batch by batch.

    Args:
        traced: The float network.
        ops: Its fused operators.
        titles: What to call each, by the name of its operator.
    """

    traced: GraphModule
    ops: Sequence[FusedOp]
    titles: Mapping[str, str]
    sums: dict[str, _Sums] = field(default_factory=dict)

    def add(self, images: Images, int8: Mapping[str, NDArray[np.float32]]) -> None:
        """Run a batch.

        Args:
            images: (N, C, H, W).
            int8: Outputs of the int8 network, dequantized, by the name of the fused operator; under
                `_IMAGES` the quantized images.
        """
        with torch.no_grad():
            _FloatAndInt8(self, int8).run(torch.from_numpy(images))

    def results(self) -> tuple[LayerNoise, ...]:
        """Return the layers in topological order."""
        measured = [op for op in self.ops if op.operator.name in self.sums]
        sqnr_db = {op.output: self.sums[op.operator.name].sqnr_db for op in measured}
        (images,) = self.traced.graph.find_nodes(op="placeholder")
        sqnr_db[images] = self.sums[_IMAGES].sqnr_db
        return tuple(
            LayerNoise(
                name=self.titles[op.operator.name],
                sqnr_db=sqnr_db[op.output],
                own_sqnr_db=self.sums[op.operator.name].own_sqnr_db,
                sqnr_drop_db=min(sqnr_db.get(node, math.inf) for node in op.activations)
                - sqnr_db[op.output],
            )
            for op in measured
        )


class _FloatAndInt8(torch.fx.Interpreter):
    """Runs the float network; every activation is a pair: float, and what int8 has there."""

    def __init__(self, noise: _NoiseMeter, int8: Mapping[str, NDArray[np.float32]]) -> None:
        super().__init__(noise.traced)
        self._noise = noise
        self._int8 = int8
        self._operators = {op.output: op.operator.name for op in noise.ops}
        outputs = outputs_of(noise.traced.graph)
        self._last = {op.operator.name for op in noise.ops if op.output in outputs}

    def run_node(self, n: Node) -> Any:
        if n.op == "placeholder":
            images = super().run_node(n)
            return self._measured(_IMAGES, images, images)
        if n.op != "call_function":
            return super().run_node(n)
        target = cast("Callable[..., torch.Tensor]", n.target)
        float_, exact = (target(*self._arguments(n, side)) for side in (0, 1))
        name = self._operators.get(n, "")
        return self._measured(name, float_, exact) if name in self._int8 else (float_, exact)

    def _measured(
        self, name: str, float_: torch.Tensor, exact: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add the noise of one tensor; return what the next operators read."""
        int8 = torch.from_numpy(self._int8[name]).reshape(float_.shape)
        sums = self._noise.sums.setdefault(name, _Sums())
        sums.add(float_, exact, int8, are_logits=name in self._last)
        return float_, int8

    def _arguments(self, n: Node, side: int) -> list[Any]:
        def value(node: Node) -> Any:
            found = self.env[node]
            return found[side] if isinstance(found, tuple) else found

        return list(cast("Any", torch.fx.node.map_arg(n.args, value)))
