"""Read a `.tflite`: its operators, tensors and metadata."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from mobiledeploy.artifact.artifact import Format
from mobiledeploy.artifact.tflite_file import metadata_bytes, read_metadata, read_tflite
from mobiledeploy.errors import ArtifactError
from mobiledeploy.inspect.coverage import OperatorWork, coverage_of
from mobiledeploy.inspect.summary import (
    ArtifactSummary,
    OperatorGroup,
    TensorEncoding,
    TensorSummary,
    count_operators,
)
from mobiledeploy.utils.files import sha256_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_OPERATORS = {
    number: name
    for name, number in vars(schema.BuiltinOperator).items()
    if isinstance(number, int) and not name.startswith("_")
}
_TYPES = {
    number: name.lower()
    for name, number in vars(schema.TensorType).items()
    if isinstance(number, int) and not name.startswith("_")
}
_NOT_COMPUTING = {"QUANTIZE", "DEQUANTIZE", "RESHAPE", "PAD", "PADV2", "TRANSPOSE"}
_OUTPUT_CHANNELS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}
_OURS = ("mobiledeploy.metadata", "mobiledeploy.labels")


def inspect_tflite(path: Path) -> ArtifactSummary:
    """Return what a `.tflite` contains.

    Raises:
        ArtifactError: the file is damaged.
    """
    model = read_tflite(path)
    metadata, labels = read_metadata(path, model)
    try:
        graph = model.subgraphs[0]
        work = list(_work(model, graph))
        return ArtifactSummary(
            path=path,
            format=Format.TFLITE,
            sha256=sha256_of(path),
            size_bytes=path.stat().st_size,
            inputs=tuple(_summary(graph, number) for number in graph.inputs),
            outputs=tuple(_summary(graph, number) for number in graph.outputs),
            groups=(
                OperatorGroup(
                    where="graph as stored",
                    operators=count_operators((each.operator, each.writes) for each in work),
                ),
            ),
            weights_bytes=_weights_bytes(model, graph),
            metadata=metadata,
            labels=labels,
            coverage=coverage_of(
                (each for each in work if each.operator not in _NOT_COMPUTING), "the graph"
            ),
            other_metadata={
                name: f"{len(data)} bytes"
                for name, data in metadata_bytes(model).items()
                if name not in _OURS
            },
        )
    except (IndexError, TypeError, KeyError, AttributeError) as error:
        raise ArtifactError(
            f"{path} is damaged: its operators refer to tensors that it does not hold.",
            remedy="Export the model again, or copy the file again.",
        ) from error


def _work(model: Any, graph: Any) -> Iterator[OperatorWork]:
    """Yield the work of each operator for one image."""
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        name = _OPERATORS[max(code.builtinCode, code.deprecatedBuiltinCode)]
        output = graph.tensors[operator.outputs[0]]
        elements = math.prod(int(size) for size in output.shape)
        macs = 0
        if name in _OUTPUT_CHANNELS:
            weight = [int(size) for size in graph.tensors[operator.inputs[1]].shape]
            macs = elements * math.prod(weight) // weight[_OUTPUT_CHANNELS[name]]
        yield OperatorWork(
            name=_name(output),
            operator=name,
            reads=_TYPES[graph.tensors[operator.inputs[0]].type],
            writes=_TYPES[output.type],
            elements=elements,
            macs=macs,
        )


def _summary(graph: Any, number: int) -> TensorSummary:
    """Return an input or output, with the encoding of the operator that converts it."""
    tensor = graph.tensors[number]
    return TensorSummary(
        name=_name(tensor),
        datatype=_TYPES[tensor.type],
        shape=tuple(int(size) for size in tensor.shape),
        encoding=_encoding(graph, number),
    )


def _encoding(graph: Any, number: int) -> TensorEncoding | None:
    """Return the encoding that an input is quantized to, or an output is dequantized from."""
    for operator in graph.operators:
        for ends, others in (
            (operator.inputs, operator.outputs),
            (operator.outputs, operator.inputs),
        ):
            other = graph.tensors[others[0]]
            if number in ends and other.quantization is not None and _is_int8(other):
                scale, zero_point = other.quantization.scale, other.quantization.zeroPoint
                if scale is not None and np.size(scale) == 1:
                    return TensorEncoding(
                        datatype="int8", scale=float(scale[0]), zero_point=int(zero_point[0])
                    )
    return None


def _is_int8(tensor: Any) -> bool:
    return bool(tensor.type == schema.TensorType.INT8)


def _weights_bytes(model: Any, graph: Any) -> dict[str, int]:
    sizes: Counter[str] = Counter()
    for tensor in graph.tensors:
        data = model.buffers[tensor.buffer].data
        if data is not None:
            sizes[_TYPES[tensor.type]] += len(data)
    return dict(sizes)


def _name(tensor: Any) -> str:
    name = tensor.name
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name or "")
