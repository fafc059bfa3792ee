"""PT2E: insert quantize and dequantize operators with the encodings of a plan.

Input: a `Plan` whose weights lie on their grids. Output: an `ExportedProgram` of float operators
between dequantize and quantize operators (QDQ).
Invariants: no number is chosen here; an operator and its ReLU or ReLU6 share one quantization, so
that the 256 codes cover what the activation passes; and a clamp that saturation performs is
removed.
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
from mobiledeploy.graph.nodes import clamp_of
from mobiledeploy.stages import Encoding
from mobiledeploy.utils.quiet import quietly

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import GraphModule

    from mobiledeploy.quantization.plan import Plan

ANNOTATION = "quantization_annotation"
_QUANTIZE = torch.ops.quantized_decomposed.quantize_per_tensor.default


class MobileNetQuantizer(Quantizer):  # type: ignore[misc]  # torchao is untyped
    """Annotates every int8 operator with the encodings of a plan.

    Operators that compute in float are not annotated; their outputs are quantized where an int8
    operator reads them.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self._plan = plan

    def annotate(self, model: GraphModule) -> GraphModule:
        """Write the annotations into the nodes' metadata."""
        nodes = {node.name: node for node in model.graph.nodes}
        for op in self._plan.ops:
            if op.name in self._plan.float_ops:
                continue
            node, output = nodes[op.name], nodes[op.output.name]
            inputs = {nodes[a.name]: self._activation_spec(a.name) for a in op.activations}
            if op.has_weight:
                inputs[node.args[1]] = _weight_spec(self._plan.scales[op.name])
            node.meta[ANNOTATION] = QuantizationAnnotation(input_qspec_map=inputs, _annotated=True)
            if output is not node:
                output.meta[ANNOTATION] = QuantizationAnnotation(_annotated=True)
            output.meta[ANNOTATION].output_qspec = self._activation_spec(output.name)
        return model

    def validate(self, model: GraphModule) -> None:
        """Do nothing: `find_fused_ops` has refused graphs with other operators."""

    def _activation_spec(self, name: str) -> FixedQParamsQuantizationSpec:
        encoding = self._plan.encodings[name]
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
        observer_or_fake_quant_ctr=_FixedScalesObserver.with_args(scales=scales),
        quant_min=-127,
        quant_max=127,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
    )


class _FixedScalesObserver(ObserverBase):  # type: ignore[misc]  # torchao is untyped
    """An observer that returns given scales (out,) and observes nothing."""

    def __init__(self, scales: torch.Tensor, dtype: torch.dtype, **spec: Any) -> None:
        super().__init__(dtype=dtype, is_dynamic=False)
        self.scales = scales
        self.ch_axis = 0
        for name, value in spec.items():
            setattr(self, name, value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def calculate_qparams(self, **_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the given scales, and zero-points of zero."""
        return self.scales, torch.zeros_like(self.scales, dtype=torch.int64)


def convert(plan: Plan, input_shape: tuple[int, ...]) -> ExportedProgram:
    """Run PT2E with a plan's encodings; return the program without redundant clamps.

    Args:
        plan: The network; its weights must lie on their grids.
        input_shape: Shape of the exported input, (1, C, H, W).

    Raises:
        ExportError: PT2E did not quantize an activation.
    """
    float_outputs = {op.output.name for op in plan.ops if op.name in plan.float_ops}
    with quietly():
        prepared = prepare_pt2e(plan.traced, MobileNetQuantizer(plan))
        converted = convert_pt2e(prepared)
        _remove_redundant_clamps(converted, float_outputs)
        return torch.export.export(converted, (torch.zeros(input_shape),))


def _remove_redundant_clamps(converted: GraphModule, float_outputs: set[str]) -> None:
    """Remove every ReLU, ReLU6 or clamp whose bounds its encoding enforces, in place.

    Clamps stay behind float operators, whose outputs may not be quantized, and in residual streams
    whose encoding reaches further than their bounds.
    """
    for node in list(converted.graph.nodes):
        bounds = clamp_of(node)
        if node.name in float_outputs or bounds is None:
            continue
        (user,) = node.users
        if user.target is not _QUANTIZE:
            raise ExportError(f"The activation {node.name} was not quantized.")
        _, scale, zero_point, *_ = user.args
        if Encoding(scale=scale, zero_point=zero_point).enforces(bounds):
            node.replace_all_uses_with(node.args[0])
            converted.graph.erase_node(node)
    converted.recompile()
