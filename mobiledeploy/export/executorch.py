"""Export to ExecuTorch: a program that is one XNNPACK delegate.

In: a `QuantizedModel` or a `FoldedModel`. Out: the bytes of a `.pte` with a batch of one.
Invariants: the same network gives the same bytes; every operator runs inside the one delegate,
except for those that pick the five largest values behind it.
"""

from __future__ import annotations

import gc
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, cast

import torch
from executorch.backends.xnnpack.partition.config import (
    ALL_PARTITIONER_CONFIGS,
    ConstantPadConfig,
    DeQuantizedPerTensorConfig,
    HardswishConfig,
    SigmoidConfig,
)
from executorch.backends.xnnpack.partition.config.xnnpack_config import ConfigPrecisionType
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import ExecutorchBackendConfig, to_edge_transform_and_lower
from executorch.exir.passes import MemoryPlanningPass
from torch.fx.traceback import NodeSource

from mobiledeploy.artifact.metadata import for_executorch
from mobiledeploy.errors import ExportError
from mobiledeploy.export.core_operators import in_core_operators, without_idle_decompositions
from mobiledeploy.export.pixel_program import with_pixel_input
from mobiledeploy.export.program import program_of
from mobiledeploy.export.xnnpack_passes.activate_outputs import activate_outputs
from mobiledeploy.export.xnnpack_passes.needed_passes import needed_passes
from mobiledeploy.export.xnnpack_passes.repeat_pixels import repeat_pixels
from mobiledeploy.export.xnnpack_passes.space_to_depth_stem import space_to_depth_stems
from mobiledeploy.utils.progress import step
from mobiledeploy.utils.quiet import quietly

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from executorch.exir import EdgeProgramManager
    from executorch.exir.backend.partitioner import PartitionResult
    from torch._ops import OpOverload
    from torch.export import ExportedProgram
    from torch.fx import Node

    from mobiledeploy.stages import FoldedModel, QuantizedModel


def encode_model(model: QuantizedModel | FoldedModel) -> bytes:
    """Return the network as a serialized `.pte`.

    Raises:
        ExportError: the exporter refused the network, or left an operator outside the delegate.
    """
    activated = activate_outputs(program_of(model), model.info.outputs)
    program = with_pixel_input(activated, model.info.input)
    return encode(program, for_executorch(model))


def encode(program: ExportedProgram, metadata: Mapping[str, bytes]) -> bytes:
    """Return a program as a serialized `.pte`.

    Args:
        program: Quantized (PT2E-converted) or float, with a batch of one.
        metadata: Each entry becomes a constant method that returns its bytes as a uint8 tensor.

    Raises:
        ExportError: the exporter refused the program, or left an operator outside the delegate.
    """
    constant_methods = {
        name: torch.frombuffer(bytearray(value), dtype=torch.uint8)
        for name, value in metadata.items()
    }
    try:
        with quietly(), _faster_lowering(), space_to_depth_stems(), _Phases() as phases:
            phases.begin("Decomposing operators")
            edge = to_edge_transform_and_lower(
                in_core_operators(repeat_pixels(program)),
                partitioner=[_Partitioner(phases)],
                constant_methods=constant_methods,
            )
            _require_one_delegate(edge)
            phases.begin("Planning memory and serializing")
            return cast("bytes", edge.to_executorch(_memory_planning(program)).buffer)
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        raise ExportError(f"ExecuTorch could not lower the network: {error}") from error


class QuantizedHardswish(HardswishConfig):  # type: ignore[misc]  # executorch is untyped
    """Let the partitioner take int8 hard-swish, which XNNPACK runs as a table of 256 entries.

    ExecuTorch's own configuration takes float only. Its serializer and XNNPACK's runtime support
    int8: `xnn_define_unary` fills the table from the operator's formula.
    """

    def supported_precision_types(self) -> list[ConfigPrecisionType]:
        """Return float and static int8."""
        return [ConfigPrecisionType.FP32, ConfigPrecisionType.STATIC_QUANT]


class QuantizedSigmoid(SigmoidConfig):  # type: ignore[misc]  # executorch is untyped
    """Let the partitioner take int8 sigmoid, which XNNPACK runs as a table of 256 entries.

    ExecuTorch's own configuration takes float only.
    """

    def supported_precision_types(self) -> list[ConfigPrecisionType]:
        """Return float and static int8."""
        return [ConfigPrecisionType.FP32, ConfigPrecisionType.STATIC_QUANT]


class QuantizedPad(ConstantPadConfig):  # type: ignore[misc]  # executorch is untyped
    """Let the partitioner take int8 padding, whose value is the zero-point.

    ExecuTorch's own configuration takes float only. XNNPACK merges the padding into the
    convolution that reads it (`xnn_subgraph_fusion`), so it costs nothing.
    """

    def supported_precision_types(self) -> list[ConfigPrecisionType]:
        """Return float and static int8."""
        return [ConfigPrecisionType.FP32, ConfigPrecisionType.STATIC_QUANT]


class DequantizedPixels(DeQuantizedPerTensorConfig):  # type: ignore[misc]  # executorch is untyped
    """Let the partitioner take pixels in uint8, which a stem in float reads.

    ExecuTorch's own configuration takes int8 only.
    """

    def check_constraints(self, node: Node, ep: ExportedProgram) -> bool:
        """Return whether XNNPACK can convert the operand to float."""
        operand = cast("Node", node.args[0]).meta["val"]
        return operand.dtype == torch.uint8 or bool(super().check_constraints(node, ep))


_QUANTIZED = {
    DeQuantizedPerTensorConfig: DequantizedPixels,
    HardswishConfig: QuantizedHardswish,
    SigmoidConfig: QuantizedSigmoid,
    ConstantPadConfig: QuantizedPad,
}


class _Phases(ExitStack):
    """The phases of one lowering, shown as steps; each ends when the next one begins."""

    def begin(self, description: str) -> None:
        """End the running phase and begin another one."""
        self.close()
        self.enter_context(step(description))


class _Partitioner(XnnpackPartitioner):  # type: ignore[misc]  # executorch is untyped
    """The XNNPACK partitioner with int8 hard-swish and padding.

    Partitioning ends the decomposition; what follows it within the same call is XNNPACK's own
    passes, which take most of the time.
    """

    def __init__(self, phases: _Phases) -> None:
        super().__init__(configs=[_QUANTIZED.get(c, c) for c in ALL_PARTITIONER_CONFIGS])
        self._phases = phases

    def ops_to_not_decompose(self, ep: ExportedProgram) -> tuple[list[OpOverload], None]:
        """Return the operators that stay whole, without a check of each call.

        The network becomes one delegate, so there is nothing to check; with a check, ExecuTorch
        decomposes three times.
        """
        operators, _ = super().ops_to_not_decompose(ep)
        return operators, None

    def partition(self, exported_program: ExportedProgram) -> PartitionResult:
        """Return the partitions of a program."""
        self._phases.begin("Optimizing the graph for XNNPACK")
        return super().partition(exported_program)


# XNNPACK reads whole vectors, also past the end of a tensor whose size is not a multiple of one.
_VECTOR_ELEMENTS = 64


def _memory_planning(program: ExportedProgram) -> ExecutorchBackendConfig:
    """Return a configuration that reads the image from the app's own memory where that is safe.

    It is not safe where XNNPACK could read past the end of the image: the app's memory may end
    there. The runtime then copies the image into memory of its own.
    """
    image = program.example_inputs[0][0]
    # pixels are read as one array of bytes, planes one by one
    read_at_once = image.numel() if image.dtype == torch.uint8 else image[0, 0].numel()
    copied = read_at_once % _VECTOR_ELEMENTS != 0
    return ExecutorchBackendConfig(
        memory_planning_pass=MemoryPlanningPass(alloc_graph_input=copied)
    )


_BEHIND = ("getitem", "aten.topk.default", "aten.gather.default")


def _require_one_delegate(edge: EdgeProgramManager) -> None:
    """Raise ExportError unless the whole network went into a single delegate."""
    calls = edge.exported_program().graph.find_nodes
    delegate = torch.ops.higher_order.executorch_call_delegate
    delegates = calls(op="call_function", target=delegate)
    outside = [
        str(node.target)
        for node in edge.exported_program().graph.nodes
        if node.op == "call_function"
        and node.target is not delegate
        and not any(name in str(node.target) for name in _BEHIND)
    ]
    if len(delegates) != 1 or outside:
        raise ExportError(
            f"Expected one XNNPACK delegate and nothing outside it; found {len(delegates)}"
            f" delegates and, outside: {', '.join(outside) or 'nothing'}."
        )


@contextmanager
def _faster_lowering() -> Iterator[None]:
    """Avoid costs of lowering that do not affect its result (MobileNetV2: 15 s -> 3 s of CPU).

    Its passes deep-copy the provenance of every node (`from_node`), which no pass changes: sharing
    it is enough. The garbage collector walks millions of live nodes: it is paused. Passes that find
    nothing to change are left out.
    """
    collecting = gc.isenabled()
    gc.disable()
    NodeSource.__deepcopy__ = lambda self, _memo: self  # type: ignore[attr-defined]
    try:
        with needed_passes(), without_idle_decompositions():
            yield
    finally:
        del NodeSource.__deepcopy__  # type: ignore[attr-defined]
        if collecting:
            gc.enable()
