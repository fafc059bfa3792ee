"""Run only those graph passes of lowering that can change something in the network.

In: a program, and the partition that becomes the delegate. Out: the same graphs as all passes give;
a test compares the bytes. Every pass traces the whole graph anew, and two export graphs of the
patterns that they look for first (figures: decision record 0018). A pass that these tables do not
know is always run.
Source: `executorch/exir/passes` and `executorch/backends/xnnpack/_passes` of ExecuTorch 1.4 and
1.5.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch
from executorch.backends.xnnpack import xnnpack_preprocess
from executorch.exir.passes.dim_order_ops_registry import DimOrderOpsMap
from torch.fx import Node
from torch.fx.passes.infra.pass_base import PassBase, PassResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch.export import ExportedProgram
    from torch.fx import GraphModule

    Finds = Callable[[Node], bool]

aten = torch.ops.aten

_CONVOLUTION_1D_RANK = 3
_PROMOTING = ("add.Tensor", "mul.Tensor", "sub.Tensor", "div.Tensor", "minimum.default")


def _calls(*parts: str) -> Finds:
    """Return whether a node calls an operator whose name contains one of these parts."""
    return lambda node: any(part in _operator(node) for part in parts)


def _is_convolution_1d(node: Node) -> bool:
    return "convolution" in _operator(node) and node.meta["val"].dim() == _CONVOLUTION_1D_RANK


def _has_scalar_for_tensor(node: Node) -> bool:
    """Return whether a node passes a number where its operator takes a tensor."""
    return any(isinstance(value, float | int) for value in _tensor_operands(node))


def _mixes_types(node: Node) -> bool:
    """Return whether a node computes with operands of several types, or with numbers."""
    if not _operator(node).endswith(_PROMOTING):
        return False
    operands = _tensor_operands(node)
    types = {each.meta["val"].dtype if isinstance(each, Node) else None for each in operands}
    return len(types) > 1 or None in types


_FINDS_IN_PROGRAM: Mapping[str, Finds] = {
    "NormalizeTransposePass": lambda node: node.target is aten.t.default,
    "ReplaceBrokenOpsWithFunctionalOpsPass": lambda node: getattr(node.target, "is_view", False),
    "ScalarToTensorPass": _has_scalar_for_tensor,
    "SymToTensorPass": lambda node: not isinstance(node.meta.get("val"), torch.Tensor),
    "RemoveMixedTypeOperators": _mixes_types,
    "MemoryFormatOpsPass": lambda node: node.target in DimOrderOpsMap,
}
"""What each pass over the whole program looks for; it changes nothing without such a node."""


def _computes_a_constant(program: ExportedProgram) -> Finds:
    """Return whether a node computes something from constants alone; dequantizing stays."""
    signature = program.graph_signature
    constants = {
        *signature.inputs_to_parameters,
        *signature.inputs_to_buffers,
        *signature.inputs_to_lifted_tensor_constants,
    }

    def finds(node: Node) -> bool:
        return "dequantize" not in _operator(node) and all(
            source.op == "get_attr" or source.name in constants for source in node.all_input_nodes
        )

    return finds


_FINDS_IN_DELEGATE: Mapping[str, Finds] = {
    "DimOrderOpsRevertPass": _calls("dim_order"),
    "ConvertToUpsampleBilinear2d": _calls("aten.index", "upsample"),
    "ConvertToLinearPass": _calls("aten.mm", "aten.addmm", "aten.bmm"),
    "PropagateCustomMetaPass": lambda node: "custom" in node.meta,
    "ConvertToSDPAPass": _calls("softmax", "scaled_dot_product"),
    "FuseBatchNormPass": _calls("batch_norm"),
    "DecomposeBatchNorm": _calls("batch_norm"),
    "FuseActivationPass": _calls("relu", "hardtanh", "clamp"),
    "DecomposeConcatenate": _calls("aten.cat"),
    "RemoveGetItemPass": _calls("getitem"),
    "Conv1dUnsqueezePass": _is_convolution_1d,
    "PReLUReshapePass": _calls("prelu"),
}
"""What each of XNNPACK's passes looks for; it changes nothing without such a node."""


@contextmanager
def needed_passes() -> Iterator[None]:
    """Make ExecuTorch leave out passes that find nothing, inside the context."""
    with (
        patch.object(xnnpack_preprocess, "XNNPACKPassManager", _needed_in_delegate()),
        patch.object(PassBase, "__call__", _call_if_needed(PassBase.__call__)),
    ):
        yield


def _needed_in_delegate() -> type:
    """Return XNNPACK's pass manager without the passes that find nothing."""

    class NeededPasses(xnnpack_preprocess.XNNPACKPassManager):  # type: ignore[misc]  # is untyped
        """XNNPACK's passes without those that find nothing."""

        passes: list[type]

        def __init__(self, exported_program: ExportedProgram, passes: list[type] | None) -> None:
            super().__init__(exported_program, passes)
            finds = {**_FINDS_IN_DELEGATE, "ConstPropPass": _computes_a_constant(exported_program)}
            graph_module = exported_program.graph_module
            self.passes = [
                each for each in self.passes if _finds(finds.get(each.__name__), graph_module)
            ]

    return NeededPasses


def _call_if_needed(call: Any) -> Any:
    """Return the function that runs a pass, if there is something for it to find."""

    def call_if_needed(self: PassBase, graph_module: GraphModule) -> PassResult | None:
        if _finds(_FINDS_IN_PROGRAM.get(type(self).__name__), graph_module):
            return call(self, graph_module)  # type: ignore[no-any-return]
        return PassResult(graph_module, modified=False)

    return call_if_needed


def _finds(finds: Finds | None, graph_module: GraphModule) -> bool:
    """Return whether a pass may change something in a graph; an unknown pass may."""
    calls = (node for node in graph_module.graph.nodes if node.op == "call_function")
    return finds is None or any(map(finds, calls))


def _operator(node: Node) -> str:
    """Return the name of the operator that a node calls, such as "aten.add.Tensor"."""
    return getattr(node.target, "__name__", str(node.target))


def _tensor_operands(node: Node) -> list[object]:
    """Return the arguments of a node where its operator takes a tensor."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:  # a function of Python, such as getitem
        return []
    parameters = schema.arguments
    values = [*node.args, *(node.kwargs.get(each.name) for each in parameters[len(node.args) :])]
    return [
        value
        for value, parameter in zip(values, parameters, strict=True)
        if isinstance(parameter.type, torch.TensorType)
    ]
