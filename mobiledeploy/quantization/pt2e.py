"""The PT2E quantizer: where quantize and dequantize go, with which encodings.

It decides nothing about numbers: encodings and weight scales are given to it. It knows which
operators become one int8 operator: a convolution or linear layer with its ReLU or ReLU6, so that
the 256 levels are spent on what the activation lets through and not on what it throws away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torchao.quantization.pt2e import ObserverBase
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer import (
    FixedQParamsQuantizationSpec,
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
)

from mobiledeploy.errors import ExportError
from mobiledeploy.graph.aten_graph import clamp_of
from mobiledeploy.network import Encoding
from mobiledeploy.utils.quiet import quietly

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from torch.export import ExportedProgram
    from torch.fx import GraphModule

    from mobiledeploy.graph.aten_graph import FusedOp
    from mobiledeploy.network import Encoding
    from mobiledeploy.quantization.plan import Plan

ANNOTATION = "quantization_annotation"


class MobileNetQuantizer(Quantizer):  # type: ignore[misc]  # torchao is untyped
    """Annotates every unit with the encodings that were chosen for it.

    Args:
        ops: Of the graph that is annotated.
        encodings: By node name: of every activation that enters or leaves a unit.
        weight_scales: By the name of the unit's operator: (out,) float32.
        floating: Names of the operators of the units that compute in float: they are left alone,
            and what they write is quantized where an int8 unit reads it.
    """

    def __init__(
        self,
        ops: Sequence[FusedOp],
        encodings: Mapping[str, Encoding],
        weight_scales: Mapping[str, torch.Tensor],
        floating: Collection[str] = (),
    ) -> None:
        super().__init__()
        self._units = {u.operator.name: u for u in ops if u.operator.name not in floating}
        self._encodings = encodings
        self._weight_scales = weight_scales

    def annotate(self, model: GraphModule) -> GraphModule:
        """Write the annotations into the nodes' metadata."""
        nodes = {node.name: node for node in model.graph.nodes}
        for name, op in self._units.items():
            node, output = nodes[name], nodes[op.output.name]
            inputs = {nodes[a.name]: self._activation(a.name) for a in op.activations}
            if op.has_weight:
                inputs[node.args[1]] = _weight_spec(self._weight_scales[name])
            node.meta[ANNOTATION] = QuantizationAnnotation(input_qspec_map=inputs, _annotated=True)
            if output is not node:
                output.meta[ANNOTATION] = QuantizationAnnotation(_annotated=True)
            output.meta[ANNOTATION].output_qspec = self._activation(output.name)
        return model

    def validate(self, model: GraphModule) -> None:
        """Nothing is left to check: `find_fused_ops` refuses graphs with unknown operators."""

    def _activation(self, name: str) -> FixedQParamsQuantizationSpec:
        encoding = self._encodings[name]
        return FixedQParamsQuantizationSpec(
            dtype=torch.int8,
            scale=encoding.scale,
            zero_point=encoding.zero_point,
            quant_min=-128,
            quant_max=127,
            qscheme=torch.per_tensor_affine,
        )


def _weight_spec(scales: torch.Tensor) -> QuantizationSpec:
    return QuantizationSpec(
        dtype=torch.int8,
        observer_or_fake_quant_ctr=_GivenScales.with_args(scales=scales),
        quant_min=-127,
        quant_max=127,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
    )


class _GivenScales(ObserverBase):  # type: ignore[misc]  # torchao is untyped
    """An observer that has been told the answer."""

    def __init__(self, scales: torch.Tensor, dtype: torch.dtype, **spec: Any) -> None:
        super().__init__(dtype=dtype, is_dynamic=False)
        self.scales = scales
        self.ch_axis = 0
        for name, value in spec.items():
            setattr(self, name, value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def calculate_qparams(self, **_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the scales that were given, and zero-points of zero."""
        return self.scales, torch.zeros_like(self.scales, dtype=torch.int64)


_QUANTIZE = torch.ops.quantized_decomposed.quantize_per_tensor.default


def convert(
    planned: Plan, floating: frozenset[str], input_shape: tuple[int, ...]
) -> ExportedProgram:
    """Run PT2E with everything given; return the program without the clamps it has made idle."""
    given = (planned.ops, planned.encodings, planned.scales)
    in_float = {op.output.name for op in planned.ops if op.operator.name in floating}
    with quietly():
        prepared = prepare_pt2e(planned.traced, MobileNetQuantizer(*given, floating))
        converted = convert_pt2e(prepared)
        _drop_subsumed_clamps(converted, in_float)
        return torch.export.export(converted, (torch.zeros(input_shape),))


def _drop_subsumed_clamps(converted: GraphModule, in_float: set[str]) -> None:
    """Remove every ReLU, ReLU6 or clamp whose bounds lie outside what its encoding can say.

    Those that compute in float stay: what reads them may not be quantized. So does a clamp in a
    residual stream whose other tensors reach further: their encoding does not perform it.
    """
    for node in list(converted.graph.nodes):
        bounds = clamp_of(node)
        if node.name in in_float or bounds is None:
            continue
        (user,) = node.users
        if user.target is not _QUANTIZE:
            raise ExportError(f"The activation {node.name} was not quantized.")
        _, scale, zero_point, *_ = user.args
        if Encoding(scale=scale, zero_point=zero_point).enforces(bounds):
            node.replace_all_uses_with(node.args[0])
            converted.graph.erase_node(node)
    converted.recompile()
