"""What an XNNPACK delegate holds: operators with the datatypes they write, constants, encodings.

See executorch/backends/xnnpack/serialization/schema.fbs.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mobiledeploy.artifact.flatbuffer import Generated, bindings
from mobiledeploy.inspect.coverage import OperatorWork
from mobiledeploy.inspect.summary import OperatorCount, TensorEncoding, count_operators

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_SCHEMA = "backends/xnnpack/serialization/schema.fbs"
# XNNDatatype -> numpy's name; "q" is for one scale, "qc" for one per channel, "qd" for dynamic.
_DATATYPES = {
    "xnn_datatype_fp32": "float32",
    "xnn_datatype_fp16": "float16",
    "xnn_datatype_bf16": "bfloat16",
    "xnn_datatype_qint8": "int8",
    "xnn_datatype_quint8": "uint8",
    "xnn_datatype_qint32": "int32",
    "xnn_datatype_qcint8": "int8",
    "xnn_datatype_qcint32": "int32",
    "xnn_datatype_qdint8": "int8",
    "xnn_datatype_int32": "int32",
}
# These pass on what they read, in another order or shape.
_LAYOUT_NODES = ("XNNStaticTranspose", "XNNStaticReshape", "XNNCopy")
_CONVERT = "XNNConvert"
_NOT_COMPUTING = frozenset(
    {*_LAYOUT_NODES, _CONVERT, "XNNStaticConstantPad", "XNNStaticSlice"}
    | {f"XNNConcatenate{count}" for count in range(2, 6)}
)
_MATRIX_PRODUCTS = ("XNNFullyConnected", "XNNBatchMatrixMultiply")


@dataclass(frozen=True, slots=True, kw_only=True)
class XnnpackGraph:
    """One delegate.

    Attributes:
        operators: By name and by the datatype that they write.
        work: What each computing operator does, in order.
        constants_bytes: Size of weights, biases and per-channel scales by datatype.
        input_encodings: How each input is quantized, in the order of the call's arguments.
        output_encodings: How each output was quantized before.
    """

    operators: tuple[OperatorCount, ...]
    work: tuple[OperatorWork, ...]
    constants_bytes: Counter[str]
    input_encodings: tuple[TensorEncoding | None, ...]
    output_encodings: tuple[TensorEncoding | None, ...]


@dataclass(frozen=True, slots=True)
class _Node:
    kind: str
    inputs: tuple[int, ...]
    output: int
    terms: int


@dataclass(frozen=True, slots=True)
class _Value:
    datatype: str
    dims: tuple[int, ...]
    constant: bool
    encoding: TensorEncoding | None
    scales: int


def read_xnnpack(graph: bytes) -> XnnpackGraph:
    """Read a delegate's flatbuffer.

    What it raises when that is damaged, `structure_errors_explained` translates.

    Raises:
        RuntimeFailedError: the installed executorch cannot read it.
    """
    schema = bindings(_SCHEMA)
    kinds = {number: name for name, number in vars(schema.XNodeUnion).items() if name[0] == "X"}
    datatypes = {
        number: _DATATYPES.get(name, name.removeprefix("xnn_datatype_"))
        for name, number in vars(schema.XNNDatatype).items()
        if name.startswith("xnn_datatype_")
    }
    content = schema.XNNGraphT.InitFromPackedBuf(graph, 0)
    nodes = [_node(kinds[node.xnodeUnionType], node.xnodeUnion) for node in content.xnodes]
    values = dict(_value(value.xvalueUnion, datatypes) for value in content.xvalues)
    return XnnpackGraph(
        operators=count_operators((node.kind, values[node.output].datatype) for node in nodes),
        work=tuple(
            _work(index, node, values)
            for index, node in enumerate(nodes)
            if node.kind not in _NOT_COMPUTING
        ),
        constants_bytes=_constants_bytes(values.values()),
        input_encodings=tuple(_encoded_as(int(i), nodes, values) for i in content.inputIds),
        output_encodings=tuple(_decoded_from(int(i), nodes, values) for i in content.outputIds),
    )


def _node(kind: str, fields: Generated) -> _Node:
    """Return a node with its inputs and its first output, whatever its kind calls them."""
    ids = {name: number for name, number in vars(fields).items() if name.endswith("Id")}
    inputs = tuple(number for name, number in ids.items() if not name.startswith("output"))
    output = next(n for name, n in ids.items() if name.startswith("output"))
    return _Node(kind, inputs, output, _terms(fields))


def _terms(fields: Generated) -> int:
    """Return how many products a convolution sums up per element; 0 for other nodes."""
    if not hasattr(fields, "groupInputChannels"):
        return 0
    return int(fields.kernelHeight * fields.kernelWidth * fields.groupInputChannels)


def _work(index: int, node: _Node, values: Mapping[int, _Value]) -> OperatorWork:
    """Return what a node does."""
    first, written = values[node.inputs[0]], values[node.output]
    elements = math.prod(written.dims)
    terms = first.dims[-1] if node.kind in _MATRIX_PRODUCTS else node.terms
    return OperatorWork(
        name=f"{node.kind.removeprefix('XNN')} #{index} {list(written.dims)}",
        operator=node.kind,
        reads=first.datatype,
        writes=written.datatype,
        elements=elements,
        macs=elements * terms,
    )


def _value(union: Generated, datatypes: Mapping[int, str]) -> tuple[int, _Value]:
    """Return a value's id, and the value."""
    tensor: Generated = getattr(union, "tensorValue", union)
    parameters: Generated = getattr(union, "quantParams", None)
    datatype = datatypes[tensor.datatype]
    encoding = None
    if hasattr(parameters, "zeroPoint"):
        encoding = TensorEncoding(
            datatype=datatype, scale=parameters.scale, zero_point=parameters.zeroPoint
        )
    return tensor.idOut, _Value(
        datatype=datatype,
        # flatc's object API gives 0 or None in place of an empty array
        dims=tuple(tensor.dims.tolist()) if tensor.numDims else (),
        constant=tensor.constantBufferIdx > 0,
        encoding=encoding,
        scales=getattr(parameters, "numScales", 0),
    )


def _constants_bytes(values: Iterable[_Value]) -> Counter[str]:
    """Return the size of constants by datatype, their per-channel scales included."""
    sizes: Counter[str] = Counter()
    for value in values:
        if value.constant:
            sizes[value.datatype] += math.ceil(math.prod(value.dims) * _item_bytes(value.datatype))
            sizes["float32"] += value.scales * 4
    return +sizes


def _item_bytes(datatype: str) -> float:
    """Return the size of one element: from the bits in its name, such as 4 in "qcint4"."""
    return int(re.findall(r"\d+", datatype)[-1]) / 8


def _encoded_as(
    value: int, nodes: Sequence[_Node], values: Mapping[int, _Value]
) -> TensorEncoding | None:
    """Return what an input is converted to, where that is all that is done with it."""
    readers = [node for node in nodes if value in node.inputs]
    if len(readers) != 1:
        return None
    if readers[0].kind in _LAYOUT_NODES:
        return _encoded_as(readers[0].output, nodes, values)
    return values[readers[0].output].encoding if readers[0].kind == _CONVERT else None


def _decoded_from(
    value: int, nodes: Sequence[_Node], values: Mapping[int, _Value]
) -> TensorEncoding | None:
    """Return what an output was converted from."""
    writers = [node for node in nodes if value == node.output]
    if len(writers) != 1:
        return None
    if writers[0].kind in _LAYOUT_NODES:
        return _decoded_from(writers[0].inputs[0], nodes, values)
    return values[writers[0].inputs[0]].encoding if writers[0].kind == _CONVERT else None
