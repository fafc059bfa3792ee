"""The program that all exporters read: one `torch.export` program with a batch of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mobiledeploy.export.activations import activate_outputs
from mobiledeploy.graph.aten_graph import trace
from mobiledeploy.network import FoldedModel, QuantizedModel
from mobiledeploy.utils.quiet import quietly

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from mobiledeploy.artifact.artifact import Precision


def program_of(model: QuantizedModel | FoldedModel) -> ExportedProgram:
    """Return the int8 program of a quantized model, or export a float model."""
    if isinstance(model, QuantizedModel):
        return activate_outputs(model.program, model.info.outputs)
    # The traced graph expresses hard-sigmoid as a clamp. torch.export would decompose it into
    # operators that the XNNPACK partitioner leaves out of the delegate.
    with quietly():
        example = torch.zeros(model.info.input.folded_shape)
        program = torch.export.export(trace(model), (example,))
    return activate_outputs(program, model.info.outputs)


def precision_of(model: QuantizedModel | FoldedModel) -> Precision:
    """Return "int8" for a quantized model, else "fp32"."""
    return "int8" if isinstance(model, QuantizedModel) else "fp32"
