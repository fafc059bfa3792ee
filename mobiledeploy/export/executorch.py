"""The network as an ExecuTorch program: one XNNPACK delegate, and nothing outside it.

In: an `ExportedProgram` of batch one. Out: the bytes of a `.pte`.

Invariants: same program, same bytes; every operator of the network runs inside the one delegate.
"""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import torch
from executorch.backends.xnnpack.partition.config import (
    ALL_PARTITIONER_CONFIGS,
    ConstantPadConfig,
    HardswishConfig,
)
from executorch.backends.xnnpack.partition.config.xnnpack_config import ConfigPrecisionType
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import ExecutorchBackendConfig, to_edge_transform_and_lower
from executorch.exir.passes import MemoryPlanningPass
from torch.fx.traceback import NodeSource

from mobiledeploy.errors import ExportError
from mobiledeploy.export.xnnpack_passes.space_to_depth_stem import stem_reads_pairs
from mobiledeploy.utils.quiet import quietly

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from executorch.exir import EdgeProgramManager
    from torch.export import ExportedProgram


class QuantizedHardswish(HardswishConfig):  # type: ignore[misc]  # executorch is untyped
    """Hard-swish of int8 codes, which XNNPACK runs as a table of 256 entries.

    ExecuTorch's own configuration offers hard-swish in float only; its serializer and XNNPACK's
    runtime take the quantized one: `xnn_define_unary` fills the table from the operator's formula.
    """

    def supported_precision_types(self) -> list[ConfigPrecisionType]:
        """Return float and static int8."""
        return [ConfigPrecisionType.FP32, ConfigPrecisionType.STATIC_QUANT]


class QuantizedPad(ConstantPadConfig):  # type: ignore[misc]  # executorch is untyped
    """Padding of int8 codes with the zero-point's code.

    Likewise float only in ExecuTorch's own configuration. XNNPACK's optimizer makes it the padding
    of the convolution behind it (`xnn_subgraph_fusion`), so that it costs nothing.
    """

    def supported_precision_types(self) -> list[ConfigPrecisionType]:
        """Return float and static int8."""
        return [ConfigPrecisionType.FP32, ConfigPrecisionType.STATIC_QUANT]


_QUANTIZED = {HardswishConfig: QuantizedHardswish, ConstantPadConfig: QuantizedPad}


def _partitioner() -> XnnpackPartitioner:
    return XnnpackPartitioner(configs=[_QUANTIZED.get(c, c) for c in ALL_PARTITIONER_CONFIGS])


def encode(program: ExportedProgram, metadata: Mapping[str, bytes]) -> bytes:
    """Return the program as a serialized `.pte`.

    Args:
        program: Batch of one; quantized (PT2E-converted) or float.
        metadata: Each entry becomes a constant method that returns its bytes as a uint8 tensor.

    Raises:
        ExportError: the exporter refused the program, or left an operator outside the delegate.
    """
    constant_methods = {
        name: torch.frombuffer(bytearray(value), dtype=torch.uint8)
        for name, value in metadata.items()
    }
    try:
        with quietly(), _lowering_faster(), stem_reads_pairs():
            edge = to_edge_transform_and_lower(
                program, partitioner=[_partitioner()], constant_methods=constant_methods
            )
            _require_one_delegate(edge)
            return cast("bytes", edge.to_executorch(_memory(program)).buffer)
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        raise ExportError(f"ExecuTorch could not lower the network: {error}") from error


# XNNPACK reads in vectors, and past the end of a tensor that is no whole number of them.
_WHOLE_VECTORS = 64


def _memory(program: ExportedProgram) -> ExecutorchBackendConfig:
    """Let the network read the image where the app has it, not from a copy in its own memory.

    Unless XNNPACK could read past the image's end: the app's memory may end there, the runtime's
    goes on.
    """
    height, width = program.example_inputs[0][0].shape[-2:]
    copied = height * width % _WHOLE_VECTORS != 0
    return ExecutorchBackendConfig(
        memory_planning_pass=MemoryPlanningPass(alloc_graph_input=copied)
    )


def _require_one_delegate(edge: EdgeProgramManager) -> None:
    """Raise unless the whole network went into a single delegate."""
    calls = edge.exported_program().graph.find_nodes
    delegate = torch.ops.higher_order.executorch_call_delegate
    delegates = calls(op="call_function", target=delegate)
    outside = [
        str(node.target)
        for node in edge.exported_program().graph.nodes
        if node.op == "call_function"
        and node.target is not delegate
        and "getitem" not in str(node.target)
    ]
    if len(delegates) != 1 or outside:
        raise ExportError(
            f"Expected one XNNPACK delegate and nothing outside it; found {len(delegates)}"
            f" delegates and, outside: {', '.join(outside) or 'nothing'}."
        )


@contextmanager
def _lowering_faster() -> Iterator[None]:
    """Spare the lowering two costs that do not touch its result (18 s -> 12 s for MobileNetV2).

    Its passes deep-copy every node's provenance (`from_node`), which nobody changes, again and
    again: sharing it is as good. And the garbage collector walks millions of live nodes.
    """
    collecting = gc.isenabled()
    gc.disable()
    NodeSource.__deepcopy__ = lambda self, _memo: self  # type: ignore[attr-defined]
    try:
        yield
    finally:
        del NodeSource.__deepcopy__  # type: ignore[attr-defined]
        if collecting:
            gc.enable()
