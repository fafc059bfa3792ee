"""Cut a `.pte` into programs of one XNNPACK operator each, so that each can be timed.

ExecuTorch's Python module is built without its event tracer, so a program does not report the times
of its operators there. Instead, each node of the delegate's graph becomes a program of its own,
with the shapes, encodings, weights and flags that it has in the network. What the node reads and
writes becomes the program's inputs and outputs.

Layout: executorch/schema/program.fbs, executorch/backends/xnnpack/serialization/schema.fbs and
executorch/backends/xnnpack/runtime/XNNHeader.h.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import flatbuffers
import numpy as np

from mobiledeploy.artifact.flatbuffer import Generated, bindings
from mobiledeploy.artifact.pte_file import (
    METHOD,
    XNNPACK,
    PteContents,
    read_pte,
    split_xnnpack_payload,
    structure_errors_explained,
)
from mobiledeploy.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_PROGRAM = "schema/program.fbs"
_GRAPH = "backends/xnnpack/serialization/schema.fbs"
_NO_VALUE = 0xFFFFFFFF
_EXTERNAL_INPUT, _EXTERNAL_OUTPUT = 1, 2
_ALIGNMENT = 64
_XNN_HEADER = struct.Struct("<4x4sHIIIQ")
# XNNDatatype -> ScalarType and NumPy's name, for the inputs and outputs of a delegate
_DATATYPES = {1: (6, "float32"), 3: (1, "int8"), 4: (0, "uint8")}


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleOperator:
    """One operator as a program.

    Attributes:
        name: Kind, index in the graph, and shapes.
        kind: The name in the schema, for example "XNNConv2d".
        inputs: NumPy datatype and shape of the program's inputs.
        reads: The ids of these values in the network's graph.
        writes: The ids of the program's outputs in the network's graph.
        program: The bytes of a complete `.pte`.
    """

    name: str
    kind: str
    inputs: tuple[tuple[str, tuple[int, ...]], ...]
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    program: bytes


def single_operators(path: Path) -> Iterator[SingleOperator]:
    """Yield the operators of all XNNPACK delegates of a `.pte`, in order.

    Raises:
        ArtifactError: The file is damaged, or an activation has a datatype that programs cannot
            take as input.
        RuntimeFailedError: The installed executorch cannot read it.
    """
    for raw, constants in delegate_graphs(path):
        with structure_errors_explained(path):
            whole = read_graph(raw)
            _require_known_datatypes(path, whole)
            for index, node in enumerate(whole.xnodes):
                # packing changes a graph, so each operator needs its own copy
                yield _cut(read_graph(raw), index, _kind(node), constants)


def operator_names(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the name and the kind of each of these operators (see `SingleOperator`).

    Raises:
        ArtifactError: The file is damaged.
        RuntimeFailedError: The installed executorch cannot read it.
    """
    for raw, _ in delegate_graphs(path):
        with structure_errors_explained(path):
            graph = read_graph(raw)
            values = _values(graph)
            for index, node in enumerate(graph.xnodes):
                inputs, outputs = _ends(node, values)
                shapes = [_shape(values[number]) for number in (*inputs, *outputs)]
                yield _name(_kind(node), index, shapes), _kind(node)


def delegate_graphs(path: Path) -> Iterator[tuple[bytes, list[bytes]]]:
    """Yield each XNNPACK delegate of a `.pte`: its graph, and its constants by index.

    Raises:
        ArtifactError: The file is damaged.
        RuntimeFailedError: The installed executorch cannot read it.
    """
    contents = read_pte(path)
    for delegate in contents.delegates:
        if delegate.method == METHOD and delegate.backend == XNNPACK:
            blob = split_xnnpack_payload(path, delegate.payload)
            raw = bytes(blob.graph)
            with structure_errors_explained(path):
                constants = _constants(contents, blob.constants, read_graph(raw))
            yield raw, constants


def read_graph(raw: bytes) -> Generated:
    """Return a delegate's graph as objects."""
    return bindings(_GRAPH).XNNGraphT.InitFromPackedBuf(raw, 0)


def as_program(graph: Generated, constants: Sequence[bytes]) -> bytes:
    """Return a `.pte` that passes its inputs to a delegate; the graph is modified."""
    values = {_tensor(value).idOut: value for value in graph.xvalues}
    numbers = (*graph.inputIds, *graph.outputIds)
    ends = [_tensor(values[number]) for number in numbers]
    data = _keep_constants(graph, constants)
    return _program(_payload(graph, data), ends, len(graph.inputIds))


def empty_operator() -> SingleOperator:
    """Return a program that reshapes one float: its time is that of a call."""
    schema = bindings(_GRAPH)
    reshape = schema.XNNStaticReshapeT()
    reshape.numDims, reshape.newShape = 1, np.ones(1, np.uint32)
    reshape.inputId, reshape.outputId, reshape.flags = 0, 1, 0
    node = schema.XNodeT()
    node.xnodeUnionType, node.xnodeUnion = schema.XNodeUnion.XNNStaticReshape, reshape
    graph = schema.XNNGraphT()
    graph.version, graph.xnodes = "0", [node]
    graph.constantData = [schema.ConstantDataOffsetT()]
    graph.xvalues = []
    for number in (0, 1):
        tensor = schema.XNNTensorValueT()
        tensor.datatype, tensor.numDims, tensor.dims = 1, 1, np.ones(1, np.uint32)
        tensor.idOut, tensor.constantBufferIdx = number, 0
        value = schema.XValueT()
        value.xvalueUnionType, value.xvalueUnion = schema.XValueUnion.XNNTensorValue, tensor
        graph.xvalues.append(value)
    return _cut(graph, 0, "XNNStaticReshape", [b""])


def _constants(contents: PteContents, inline: memoryview, graph: Generated) -> list[bytes]:
    """Return the graph's constants by index, from the payload or from the program's named data."""
    program = bindings(_PROGRAM).ProgramT.InitFromPackedBuf(contents.data, 0)
    named = {entry.key: program.segments[entry.segmentIndex] for entry in program.namedData or ()}
    constants = [b""]
    for entry in graph.constantData[1:]:
        if entry.namedKey:
            segment = named[entry.namedKey]
            start = contents.segments_at + segment.offset
            constants.append(bytes(contents.data[start : start + segment.size]))
        else:
            constants.append(bytes(inline[entry.offset : entry.offset + entry.size]))
    return constants


def _cut(graph: Generated, index: int, kind: str, constants: Sequence[bytes]) -> SingleOperator:
    """Reduce a graph, in place, to one of its nodes and wrap it into a program."""
    node = graph.xnodes[index]
    values = _values(graph)
    inputs, outputs = _ends(node, values)
    graph.xnodes = [node]
    graph.xvalues = [values[number] for number in dict.fromkeys(_operands(node).values())]
    graph.inputIds = np.array(inputs, np.uint32)
    graph.outputIds = np.array(outputs, np.uint32)
    graph.numExterns = len(inputs) + len(outputs)
    _name_externals(values, inputs, outputs, graph.xvalues)
    ends = [_tensor(values[number]) for number in (*inputs, *outputs)]
    shapes = [_shape(values[number]) for number in (*inputs, *outputs)]
    return SingleOperator(
        name=_name(kind, index, shapes),
        kind=kind,
        inputs=tuple(
            (_DATATYPES[tensor.datatype][1], shape)
            for tensor, shape in zip(ends[: len(inputs)], shapes, strict=False)
        ),
        reads=tuple(inputs),
        writes=tuple(outputs),
        program=as_program(graph, constants),
    )


def _kind(node: Generated) -> str:
    """Return the name of a node's kind in the schema."""
    schema = bindings(_GRAPH)
    kinds: dict[int, str] = {
        number: name for name, number in vars(schema.XNodeUnion).items() if name[0] == "X"
    }
    return kinds[node.xnodeUnionType]


def _name(kind: str, index: int, shapes: Sequence[tuple[int, ...]]) -> str:
    return f"{kind.removeprefix('XNN')} #{index} {list(shapes[0])} -> {list(shapes[-1])}"


def _values(graph: Generated) -> dict[int, Generated]:
    """Return the values of a graph by their ids."""
    return {_tensor(value).idOut: value for value in graph.xvalues}


def _operands(node: Generated) -> dict[str, int]:
    """Return the ids of all values that a node names, by their role."""
    return {
        name: number
        for name, number in vars(node.xnodeUnion).items()
        if name.endswith("Id") and number != _NO_VALUE
    }


def _ends(node: Generated, values: dict[int, Generated]) -> tuple[list[int], list[int]]:
    """Return the ids of what a node reads, without constants, and of what it writes."""
    operands = _operands(node)
    outputs = [number for name, number in operands.items() if name.startswith("output")]
    inputs = [
        number
        for number in dict.fromkeys(operands.values())
        if number not in outputs and not _tensor(values[number]).constantBufferIdx
    ]
    return inputs, outputs


def _require_known_datatypes(path: Path, graph: Generated) -> None:
    """Raise if an activation has a datatype that programs cannot take or return."""
    for value in graph.xvalues:
        tensor = _tensor(value)
        if not tensor.constantBufferIdx and tensor.datatype not in _DATATYPES:
            known = ", ".join(name for _, name in _DATATYPES.values())
            raise ArtifactError(
                f"{path}: an activation has XNNPACK's datatype {tensor.datatype}; operators can be"
                f" timed only with {known}.",
                remedy="Profile a float32 or an int8 export.",
            )


def _tensor(value: Generated) -> Generated:
    union = value.xvalueUnion
    return getattr(union, "tensorValue", None) or union


def _shape(value: Generated) -> tuple[int, ...]:
    return tuple(int(size) for size in _dims(_tensor(value)))


def _dims(tensor: Generated) -> list[int]:
    return tensor.dims.tolist() if tensor.numDims else []


def _name_externals(
    values: dict[int, Generated],
    inputs: Sequence[int],
    outputs: Sequence[int],
    kept: Sequence[Generated],
) -> None:
    """Mark the inputs and outputs of the graph as external values, and no others."""
    for value in kept:
        _tensor(value).externalId, _tensor(value).flags = _NO_VALUE, 0
    for place, number in enumerate((*inputs, *outputs)):
        tensor = _tensor(values[number])
        tensor.externalId = place
        tensor.flags = _EXTERNAL_INPUT if place < len(inputs) else _EXTERNAL_OUTPUT


def _keep_constants(graph: Generated, constants: Sequence[bytes]) -> bytes:
    """Renumber the constants that the graph uses; return their bytes."""
    data = bytearray()
    entry_type = bindings(_GRAPH).ConstantDataOffsetT
    table = [entry_type()]

    def keep(index: int) -> int:
        if not index:
            return 0
        data.extend(bytes(-len(data) % _ALIGNMENT))
        entry = entry_type()
        entry.offset, entry.size, entry.namedKey = len(data), len(constants[index]), None
        table.append(entry)
        data.extend(constants[index])
        return len(table) - 1

    for value in graph.xvalues:
        tensor = _tensor(value)
        tensor.constantBufferIdx = keep(tensor.constantBufferIdx)
        parameters: Generated = getattr(value.xvalueUnion, "quantParams", None)
        if hasattr(parameters, "scaleBufferIdx"):
            parameters.scaleBufferIdx = keep(parameters.scaleBufferIdx)
    graph.constantData = table
    return bytes(data)


def _payload(graph: Generated, constants: bytes) -> bytes:
    """Return the payload for the XNNPACK backend: header, graph, constants."""
    builder = flatbuffers.Builder(1024)
    builder.Finish(graph.Pack(builder), file_identifier=b"XN01")
    packed = bytes(builder.Output())
    packed += bytes(-len(packed) % _ALIGNMENT)
    header = _XNN_HEADER.pack(
        b"XH00", _XNN_HEADER.size, _ALIGNMENT, len(packed), _ALIGNMENT + len(packed), len(constants)
    )
    return header.ljust(_ALIGNMENT, b"\0") + packed + constants


def _program(payload: bytes, ends: Sequence[Generated], inputs: int) -> bytes:
    """Return a `.pte` with one method, which passes its inputs to the delegate."""
    schema = bindings(_PROGRAM)
    plan = schema.ExecutionPlanT()
    plan.name = METHOD
    plan.containerMetaType = schema.ContainerMetadataT()
    plan.containerMetaType.encodedInpStr = plan.containerMetaType.encodedOutStr = ""
    plan.values, memory = _plan_values(ends, inputs)
    plan.inputs = np.arange(inputs, dtype=np.int32)
    plan.outputs = np.arange(inputs, len(ends), dtype=np.int32)
    plan.operators, plan.delegates = [], [_delegate()]
    plan.nonConstBufferSizes = np.array([0, memory], np.int64)
    call = schema.DelegateCallT()
    call.delegateIndex, call.args = 0, np.arange(len(ends), dtype=np.int32)
    instruction = schema.InstructionT()
    instruction.instrArgsType, instruction.instrArgs = (
        schema.InstructionArguments.DelegateCall,
        call,
    )
    chain = schema.ChainT()
    chain.inputs = chain.outputs = np.zeros(0, np.int32)
    chain.instructions = [instruction]
    plan.chains = [chain]
    program = schema.ProgramT()
    program.version, program.executionPlan = 0, [plan]
    program.constantBuffer, program.segments = [], []
    program.constantSegment = schema.SubsegmentOffsetsT()
    program.constantSegment.offsets = np.zeros(1, np.uint64)
    data = schema.BackendDelegateInlineDataT()
    data.data = np.frombuffer(payload, np.uint8)
    program.backendDelegateData = [data]
    builder = flatbuffers.Builder(len(payload) + 1024)
    builder.Finish(program.Pack(builder), file_identifier=b"ET12")
    return bytes(builder.Output())


def _delegate() -> Generated:
    schema = bindings(_PROGRAM)
    delegate = schema.BackendDelegateT()
    delegate.id, delegate.compileSpecs = XNNPACK, []
    delegate.processed = schema.BackendDelegateDataReferenceT()
    delegate.processed.location, delegate.processed.index = schema.DataLocation.INLINE, 0
    return delegate


def _plan_values(ends: Sequence[Generated], inputs: int) -> tuple[list[Generated], int]:
    """Return the method's tensors, and the bytes of memory that its outputs need.

    Inputs get no planned memory: the runtime would copy them there, and the copy would be timed.
    """
    schema = bindings(_PROGRAM)
    values, offset = [], 0
    for place, end in enumerate(ends):
        dims = _dims(end)
        scalar_type, name = _DATATYPES[end.datatype]
        tensor = schema.TensorT()
        tensor.scalarType, tensor.storageOffset, tensor.dataBufferIdx = scalar_type, 0, 0
        tensor.sizes = np.array(dims, np.int32)
        tensor.dimOrder = np.arange(len(dims), dtype=np.uint8)
        tensor.requiresGrad, tensor.layout, tensor.shapeDynamism = False, 0, 0
        if place >= inputs:
            tensor.allocationInfo = schema.AllocationDetailsT()
            tensor.allocationInfo.memoryId, tensor.allocationInfo.memoryOffsetLow = 1, offset
            size = int(np.prod(dims)) * np.dtype(name).itemsize
            offset += size + _ALIGNMENT + -size % _ALIGNMENT
        value = schema.EValueT()
        value.valType, value.val = schema.KernelTypes.Tensor, tensor
        values.append(value)
    return values, offset
