"""Softmax or sigmoid behind the outputs of a program, in float.

Input: a program and its outputs' specifications. Output: the program with activations behind its
outputs; the same one if there are none. Invariant: the network before an activation keeps its
integers, and the activation is the last operator, behind the dequantized logits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mobiledeploy.graph.aten_graph import outputs_of
from mobiledeploy.utils.quiet import quietly

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.export import ExportedProgram

    from mobiledeploy.network import OutputSpec

aten = torch.ops.aten


def activate_outputs(program: ExportedProgram, outputs: Sequence[OutputSpec]) -> ExportedProgram:
    """Return the program with the activations that its outputs should have."""
    if all(output.activation == "none" for output in outputs):
        return program
    module = program.module(check_guards=False)
    (end,) = module.graph.find_nodes(op="output")
    for node, output in zip(outputs_of(module.graph), outputs, strict=True):
        if output.activation != "none":
            with module.graph.inserting_before(end):
                call = (
                    module.graph.call_function(aten.softmax.int, (node, -1))
                    if output.activation == "softmax"
                    else module.graph.call_function(aten.sigmoid.default, (node,))
                )
            end.replace_input_with(node, call)
    module.recompile()
    assert program.example_inputs is not None
    with quietly():
        return torch.export.export(module, *program.example_inputs)
