"""Read an XNNPACK delegate: operators with their output datatypes, constants, encodings.

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
# XNNDatatype -> numpy's name. "q": one scale; "qc": one per channel; "qd": dynamic.
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
# These copy their input in another order or shape.
_LAYOUT_NODES = ("XNNStaticTranspose", "XNNStaticReshape", "XNNCopy")
_CONVERT = "XNNConvert"
_NOT_COMPUTING = frozenset(
    {*_LAYOUT_NODES, _CONVERT, "XNNStaticConstantPad", "XNNStaticSlice"}
    | {f"XNNConcatenate{count}" for count in range(2, 6)}
)
_MATRIX_PRODUCTS = ("XNNFullyConnected", "XNNBatchMatrixMultiply")


@dataclass(frozen=True, slots=True, kw_only=True)
class XnnpackGraph:
    """What one delegate contains.

    Attributes:
        operators: The operators by kind and output datatype.
        work: The work of each operator that computes, in order.
        constants_bytes: Size of weights, biases and per-channel scales by datatype.
        input_encodings: How each input is quantized, in the order of the call's arguments; None if
            it is not.
        output_encodings: How each output is dequantized; None if it is not.
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
    products: int


@dataclass(frozen=True, slots=True)
class _Value:
    datatype: str
    dims: tuple[int, ...]
    constant: bool
    encoding: TensorEncoding | None
    scales: int


def read_xnnpack(graph: bytes) -> XnnpackGraph:
    """Read the flatbuffer of a delegate.

    Call it inside `structure_errors_explained`, which translates the errors of damaged data.

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
        input_encodings=tuple(_input_encoding(int(i), nodes, values) for i in content.inputIds),
        output_encodings=tuple(_output_encoding(int(i), nodes, values) for i in content.outputIds),
    )


def _node(kind: str, fields: Generated) -> _Node:
    """Return a node with its inputs and its first output, whose field names depend on the kind."""
    ids = {name: number for name, number in vars(fields).items() if name.endswith("Id")}
    inputs = tuple(number for name, number in ids.items() if not name.startswith("output"))
    output = next(n for name, n in ids.items() if name.startswith("output"))
    return _Node(kind, inputs, output, _products_per_element(fields))


def _products_per_element(fields: Generated) -> int:
    """Return the number of products that a convolution sums per element; 0 for other nodes."""
    if not hasattr(fields, "groupInputChannels"):
        return 0
    return int(fields.kernelHeight * fields.kernelWidth * fields.groupInputChannels)


def _work(index: int, node: _Node, values: Mapping[int, _Value]) -> OperatorWork:
    """Return the work of a node."""
    first, written = values[node.inputs[0]], values[node.output]
    elements = math.prod(written.dims)
    products = first.dims[-1] if node.kind in _MATRIX_PRODUCTS else node.products
    return OperatorWork(
        name=f"{node.kind.removeprefix('XNN')} #{index} {list(written.dims)}",
        operator=node.kind,
        reads=first.datatype,
        writes=written.datatype,
        elements=elements,
        macs=elements * products,
    )


def _value(union: Generated, datatypes: Mapping[int, str]) -> tuple[int, _Value]:
    """Return the id of a value, and the value."""
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
        # for an empty array flatc's object API returns 0 or None
        dims=tuple(tensor.dims.tolist()) if tensor.numDims else (),
        constant=tensor.constantBufferIdx > 0,
        encoding=encoding,
        scales=getattr(parameters, "numScales", 0),
    )


def _constants_bytes(values: Iterable[_Value]) -> Counter[str]:
    """Return the size of the constants by datatype, including their per-channel scales."""
    sizes: Counter[str] = Counter()
    for value in values:
        if value.constant:
            sizes[value.datatype] += math.ceil(math.prod(value.dims) * _item_bytes(value.datatype))
            sizes["float32"] += value.scales * 4
    return +sizes


def _item_bytes(datatype: str) -> float:
    """Return the size of one element from the bits in its name, such as 4 in "qcint4"."""
    return int(re.findall(r"\d+", datatype)[-1]) / 8


def _input_encoding(
    value: int, nodes: Sequence[_Node], values: Mapping[int, _Value]
) -> TensorEncoding | None:
    """Return the encoding of an input whose only reader converts it."""
    readers = [node for node in nodes if value in node.inputs]
    if len(readers) != 1:
        return None
    if readers[0].kind in _LAYOUT_NODES:
        return _input_encoding(readers[0].output, nodes, values)
    return values[readers[0].output].encoding if readers[0].kind == _CONVERT else None


def _output_encoding(
    value: int, nodes: Sequence[_Node], values: Mapping[int, _Value]
) -> TensorEncoding | None:
    """Return the encoding of an output that a conversion writes."""
    writers = [node for node in nodes if value == node.output]
    if len(writers) != 1:
        return None
    if writers[0].kind in _LAYOUT_NODES:
        return _output_encoding(writers[0].inputs[0], nodes, values)
    return values[writers[0].inputs[0]].encoding if writers[0].kind == _CONVERT else None
