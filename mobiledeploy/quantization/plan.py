"""The plan of a quantization: the float network with its encodings and weight scales.

Invariant: the weights stay as they are; `round_layers` rounds them and `quantize` writes them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mobiledeploy.quantization.float_layers import find_float_ops

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import torch
    from torch.fx import GraphModule

    from mobiledeploy.graph.fused_ops import FusedOp
    from mobiledeploy.graph.shared_encodings import SharedEncoding
    from mobiledeploy.stages import ActivationStats, Encoding


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The float network and how it will be encoded.

    Attributes:
        traced: The float network as a flat ATen graph.
        ops: Its int8 operators, in topological order.
        shared_encodings: Its groups of activations that share one encoding.
        observed: Activation statistics on the calibration images, by node name.
        encodings: Encoding of every activation, by node name.
        scales: Weight scales (out,), by operator name.
        float_ops: Names of the operators that compute in float.
    """

    traced: GraphModule
    ops: tuple[FusedOp, ...]
    shared_encodings: tuple[SharedEncoding, ...]
    observed: Mapping[str, ActivationStats]
    encodings: Mapping[str, Encoding]
    scales: Mapping[str, torch.Tensor]
    float_ops: frozenset[str] = frozenset()

    @property
    def layers(self) -> tuple[FusedOp, ...]:
        """Return the operators with weights, in topological order."""
        return tuple(op for op in self.ops if op.has_weight)

    @property
    def int8_layers(self) -> tuple[FusedOp, ...]:
        """Return the operators with weights that compute in int8."""
        return tuple(op for op in self.layers if op.name not in self.float_ops)

    def input_scale(self, op: FusedOp) -> float:
        """Return the scale of an operator's first input."""
        return self.encodings[op.activations[0].name].scale

    def with_float_layers(self, names: Collection[str]) -> Plan:
        """Return the plan with these layers, and what follows them, in float."""
        return replace(self, float_ops=find_float_ops(self.ops, names))
