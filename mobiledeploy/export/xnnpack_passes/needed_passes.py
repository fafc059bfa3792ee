"""Run only those of XNNPACK's graph passes that can change something in the network.

In: the partition that becomes the delegate. Out: the same graph as all passes give; a test compares
the bytes. Every pass traces the whole graph anew, and two export graphs of the patterns that they
look for first: of 18 s of lowering MobileNetV2, passes that find nothing take 9 s.
A pass that this table does not know is always run.
Source: `executorch/backends/xnnpack/_passes` of ExecuTorch 1.4 and 1.5.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from executorch.backends.xnnpack import xnnpack_preprocess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch.export import ExportedProgram
    from torch.fx import Node

    Finds = Callable[[Node, ExportedProgram], bool]

_CONVOLUTION_1D_RANK = 3


def _calls(*parts: str) -> Finds:
    """Return whether a node calls an operator whose name contains one of these parts."""
    return lambda node, _: any(part in _operator(node) for part in parts)


def _computes_a_constant(node: Node, program: ExportedProgram) -> bool:
    """Return whether a node computes something from constants alone; dequantizing stays."""
    signature = program.graph_signature
    constants = {
        *signature.inputs_to_parameters,
        *signature.inputs_to_buffers,
        *signature.inputs_to_lifted_tensor_constants,
    }
    return "dequantize" not in _operator(node) and all(
        source.op == "get_attr" or source.name in constants for source in node.all_input_nodes
    )


def _is_convolution_1d(node: Node, _: ExportedProgram) -> bool:
    return "convolution" in _operator(node) and node.meta["val"].dim() == _CONVOLUTION_1D_RANK


_FINDS: dict[str, Finds] = {
    "DimOrderOpsRevertPass": _calls("dim_order"),
    "ConvertToUpsampleBilinear2d": _calls("aten.index", "upsample"),
    "ConvertToLinearPass": _calls("aten.mm", "aten.addmm", "aten.bmm"),
    "PropagateCustomMetaPass": lambda node, _: "custom" in node.meta,
    "ConvertToSDPAPass": _calls("softmax", "scaled_dot_product"),
    "ConstPropPass": _computes_a_constant,
    "FuseBatchNormPass": _calls("batch_norm"),
    "DecomposeBatchNorm": _calls("batch_norm"),
    "FuseActivationPass": _calls("relu", "hardtanh", "clamp"),
    "DecomposeConcatenate": _calls("aten.cat"),
    "RemoveGetItemPass": _calls("getitem"),
    "Conv1dUnsqueezePass": _is_convolution_1d,
    "PReLUReshapePass": _calls("prelu"),
}
"""What each pass looks for; it changes nothing in a graph without such a node."""


@contextmanager
def needed_passes() -> Iterator[None]:
    """Make ExecuTorch leave out XNNPACK's passes that find nothing, inside the context."""
    manager = xnnpack_preprocess.XNNPACKPassManager

    class NeededPasses(manager):  # type: ignore[misc, valid-type]  # executorch is untyped
        """XNNPACK's passes without those that find nothing."""

        passes: list[type]

        def __init__(self, exported_program: ExportedProgram, passes: list[type] | None) -> None:
            super().__init__(exported_program, passes)
            self.passes = [each for each in self.passes if _may_change(each, exported_program)]

    xnnpack_preprocess.XNNPACKPassManager = NeededPasses
    try:
        yield
    finally:
        xnnpack_preprocess.XNNPACKPassManager = manager


def _may_change(each: type, program: ExportedProgram) -> bool:
    finds = _FINDS.get(each.__name__)
    calls = (node for node in program.graph.nodes if node.op == "call_function")
    return finds is None or any(finds(node, program) for node in calls)


def _operator(node: Node) -> str:
    """Return the name of the operator that a node calls, such as "aten.add.Tensor"."""
    return getattr(node.target, "__name__", str(node.target))
