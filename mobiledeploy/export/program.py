"""The program that all exporters read: one `torch.export` program with a batch of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from mobiledeploy.errors import ExportError
from mobiledeploy.graph.aten_graph import trace
from mobiledeploy.stages import FoldedModel, QuantizedModel
from mobiledeploy.utils.quiet import quietly

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node

    from mobiledeploy.artifact.artifact import Precision
    from mobiledeploy.network import OutputSpec


def program_of(model: QuantizedModel | FoldedModel) -> ExportedProgram:
    """Return the int8 program of a quantized model, or export a float model.

    Exporters append the activations of the outputs, each in the operators of its format.
    """
    if isinstance(model, QuantizedModel):
        return model.program
    # The traced graph expresses hard-sigmoid as a clamp. torch.export would decompose it into
    # operators that the XNNPACK partitioner leaves out of the delegate.
    with quietly():
        example = torch.zeros(model.info.input.folded_shape)
        return torch.export.export(trace(model), (example,))


def codes_of(value: Node, output: OutputSpec) -> Node:
    """Return the node of the codes that an output is dequantized from.

    Raises:
        ExportError: it is computed in float.
    """
    if value.target is not torch.ops.quantized_decomposed.dequantize_per_tensor.default:
        raise ExportError(f"The output {output.name} is computed in float and has no codes.")
    return cast("Node", value.args[0])


def precision_of(model: QuantizedModel | FoldedModel) -> Precision:
    """Return "int8" for a quantized model, else "fp32"."""
    return "int8" if isinstance(model, QuantizedModel) else "fp32"
