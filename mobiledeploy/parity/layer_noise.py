"""What quantization does to each layer: how much noise it has, adds, and passes on.

In: the equalized network as a graph, and the codes of the integer reference for the same images.
Out: one `LayerError` per unit, in topological order.

    sqnr      = |float|^2 / |float - codes|^2        all noise up to here
    own sqnr  = |exact|^2 / |exact - codes|^2        the layer's own: exact is the float layer on
                                                     quantized inputs
    gained    = worst sqnr of the inputs - sqnr      in dB

Invariant: both sides see the same images; sums run over all of them before a ratio is formed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from mobiledeploy.graph.aten_graph import find_fused_ops, trace
from mobiledeploy.parity.layer_codes import LAYER_IMAGES, in_batches, title_of
from mobiledeploy.parity.types import LayerError
from mobiledeploy.utils.progress import track

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch.fx import GraphModule, Node

    from mobiledeploy.graph.aten_graph import FusedOp
    from mobiledeploy.network import FoldedModel
    from mobiledeploy.parity.types import LayerError
    from mobiledeploy.quantization.integer_reference import IntegerReference

    Images = NDArray[np.float32]

BAD_OWN_SQNR_DB = 6.0
"""Half of the signal is noise, by one layer alone. Trained networks stay above 10 dB."""


@dataclass(slots=True)
class _Sums:
    """Sums of squares of one tensor."""

    signal: float = 0.0
    noise: float = 0.0
    own_signal: float = 0.0
    own_noise: float = 0.0

    def add(self, exact: torch.Tensor, own: torch.Tensor, found: torch.Tensor) -> None:
        self.signal += float(exact.double().square().sum())
        self.noise += float((exact.double() - found).square().sum())
        self.own_signal += float(own.double().square().sum())
        self.own_noise += float((own.double() - found).square().sum())

    @property
    def sqnr_db(self) -> float:
        return _ratio_db(self.signal, self.noise)

    @property
    def own_sqnr_db(self) -> float:
        return _ratio_db(self.own_signal, self.own_noise)


@dataclass(slots=True)
class LayerErrors:
    """Collects the error of every layer, batch by batch.

    Args:
        traced: The float network that was quantized.
        units: Of it.
        names: What each unit is called, by the name of its operator.
    """

    traced: GraphModule
    ops: Sequence[FusedOp]
    names: Mapping[str, str]
    _sums: dict[str, _Sums] = field(default_factory=dict)

    def add(self, images: NDArray[np.float32], real: Mapping[str, NDArray[np.float32]]) -> None:
        """Run a batch.

        Args:
            images: (N, C, H, W).
            real: What the int8 network has behind each unit, dequantized, by the name of the unit's
                operator; under "" the quantized images.
        """
        with torch.no_grad():
            _Beside(self, real).run(torch.from_numpy(images))

    def results(self) -> tuple[LayerError, ...]:
        """Return the layers in topological order."""
        seen = [op for op in self.ops if op.operator.name in self._sums]
        behind = {op.output: self._sums[op.operator.name].sqnr_db for op in seen}
        (images,) = self.traced.graph.find_nodes(op="placeholder")
        behind[images] = self._sums[""].sqnr_db
        return tuple(
            LayerError(
                name=self.names[op.operator.name],
                sqnr_db=behind[op.output],
                own_sqnr_db=self._sums[op.operator.name].own_sqnr_db,
                gained_db=min(behind.get(node, math.inf) for node in op.activations)
                - behind[op.output],
            )
            for op in seen
        )

    def note(self, name: str, exact: torch.Tensor, own: torch.Tensor, found: torch.Tensor) -> None:
        """Add one tensor's squares."""
        self._sums.setdefault(name, _Sums()).add(exact, own, found)


def first_bad(layers: Sequence[LayerError]) -> str:
    """Return the name of the first layer that loses too much by itself; empty where none does."""
    return next((layer.name for layer in layers if layer.own_sqnr_db < BAD_OWN_SQNR_DB), "")


class _Beside(torch.fx.Interpreter):
    """Runs the float network; every activation is a pair (float, what int8 has there)."""

    def __init__(self, errors: LayerErrors, real: Mapping[str, NDArray[np.float32]]) -> None:
        super().__init__(errors.traced)
        self._errors = errors
        self._real = real
        self._operators = {op.output: op.operator.name for op in errors.ops}

    def run_node(self, n: Node) -> Any:
        if n.op == "placeholder":
            images = super().run_node(n)
            return self._pair("", images, images)
        if n.op != "call_function":
            return super().run_node(n)
        target = cast("Callable[..., torch.Tensor]", n.target)
        exact, own = (target(*self._arguments(n, side)) for side in (0, 1))
        name = self._operators.get(n, "")
        return self._pair(name, exact, own) if name in self._real and name else (exact, own)

    def _pair(
        self, name: str, exact: torch.Tensor, own: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        found = torch.from_numpy(self._real[name]).reshape(exact.shape)
        self._errors.note(name, exact, own, found)
        return exact, found

    def _arguments(self, n: Node, side: int) -> list[Any]:
        values = [self.env[a] if isinstance(a, torch.fx.Node) else a for a in n.args]
        return [value[side] if isinstance(value, tuple) else value for value in values]


def _ratio_db(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def layer_errors(
    reference: IntegerReference, equalized: FoldedModel, images: Images
) -> tuple[LayerError, ...]:
    """Return what quantization does to each layer.

    Args:
        reference: Of the int8 network.
        equalized: The float network that it was made from.
        images: The first of them are used.
    """
    traced = trace(equalized)
    (source,) = traced.graph.find_nodes(op="placeholder")
    titles = {
        operator: title_of(reference, name) for name, (operator, _) in reference.operators.items()
    }
    errors = LayerErrors(traced, find_fused_ops(traced), titles)
    batches = in_batches(images[:LAYER_IMAGES])
    for batch in track(batches, "Comparing layers with float", len(batches)):
        real = {
            reference.operators[name][0]: layer.real
            for name, layer in reference.layers(batch).items()
        }
        real[""] = real.pop(source.name, batch)  # as it is where the stem is kept in float
        errors.add(batch, real)
    return errors.results()
