"""Read an `.onnx`: the graph as stored, and as ONNX Runtime optimizes it on this machine."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, helper, numpy_helper, shape_inference

from mobiledeploy.artifact.artifact import Format
from mobiledeploy.artifact.onnx_versions import oldest_onnxruntime
from mobiledeploy.errors import ArtifactError
from mobiledeploy.inspect.coverage import OperatorWork, coverage_of
from mobiledeploy.inspect.summary import (
    INT8,
    ArtifactSummary,
    OperatorCount,
    OperatorGroup,
    TensorEncoding,
    TensorSummary,
    count_operators,
)
from mobiledeploy.runtimes.onnxruntime import (
    LABELS_KEY,
    METADATA_KEY,
    OnnxRuntimeRunner,
    read_metadata,
    save_optimized,
)
from mobiledeploy.runtimes.profiles import example_inputs, run_profiled
from mobiledeploy.utils.files import sha256_of, temporary_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from mobiledeploy.artifact.coverage import Coverage
    from mobiledeploy.runtimes.profiles import ProfiledOperator

# Position of the weight among the inputs. Convolutions: (out, in / groups, ...); products: (k, n).
_MATRIX_PRODUCTS = {
    "QGemm": 3,
    "QLinearMatMul": 3,
    "Gemm": 1,
    "FusedGemm": 1,
    "MatMul": 1,
    "MatMulInteger": 1,
}
_WEIGHT_OPERANDS = _MATRIX_PRODUCTS | {
    "QLinearConv": 3,
    "Conv": 1,
    "FusedConv": 1,
    "NhwcFusedConv": 1,
    "ConvInteger": 1,
}
_ROOM = 2  # optimized graphs are about as large as the file
_NOT_COMPUTING = frozenset(
    {
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Cast"),
        *("Transpose", "ReorderInput", "ReorderOutput", "Reshape", "Flatten", "Squeeze"),
        *("Unsqueeze", "Identity", "Pad", "Concat", "Slice", "Split", "Gather", "Expand"),
        *("Shape", "Constant", "ConstantOfShape"),
    }
)


def inspect_onnx(path: Path) -> ArtifactSummary:
    """Return what an ONNX model contains.

    Raises:
        ArtifactError: ONNX Runtime rejects the file.
    """
    with temporary_folder(_ROOM * path.stat().st_size) as folder:
        optimized_path = folder / "optimized.onnx"
        save_optimized(path, optimized_path)
        optimized = _read(optimized_path)
        coverage = _coverage(path, optimized)
    model = _read(path)
    properties = {prop.key: prop.value for prop in model.metadata_props}
    metadata, labels = read_metadata(path, properties)
    ours = (METADATA_KEY, LABELS_KEY)
    opsets = {opset.domain: opset.version for opset in model.opset_import}
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in initializers]
    return ArtifactSummary(
        path=path,
        format=Format.ONNX,
        sha256=sha256_of(path),
        size_bytes=path.stat().st_size,
        inputs=tuple(_tensor(v, _input_encoding(model, initializers, v.name)) for v in inputs),
        outputs=tuple(
            _tensor(v, _output_encoding(model, initializers, v.name)) for v in model.graph.output
        ),
        groups=(
            OperatorGroup(where="graph as stored", operators=_count(model)),
            OperatorGroup(
                where=f"graph as ONNX Runtime {OnnxRuntimeRunner.version} optimizes it here",
                operators=_count(optimized),
            ),
        ),
        weights_bytes=_weights_bytes(initializers.values()),
        metadata=metadata,
        labels=labels,
        coverage=coverage,
        opsets=opsets,
        ir_version=model.ir_version,
        oldest_onnxruntime=oldest_onnxruntime(opsets, model.ir_version),
        other_metadata={key: value for key, value in properties.items() if key not in ours},
    )


def _read(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(path)
    except (DecodeError, OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ArtifactError(
            f"{path} is not a valid ONNX model: {error}.",
            remedy="Export the model again, or copy the file again.",
        ) from error


def _coverage(path: Path, optimized: onnx.ModelProto) -> Coverage | None:
    """Return the int8 coverage in ONNX Runtime; one run reveals the types and shapes."""
    inputs = example_inputs(path, np.random.default_rng(0))
    if inputs is None:
        return None
    weights = _weights(optimized)
    work = (
        _work(operator, weights.get(operator.name))
        for operator in run_profiled(path, inputs)
        if operator.kind not in _NOT_COMPUTING
    )
    return coverage_of(work, f"ONNX Runtime {OnnxRuntimeRunner.version}")


def _work(operator: ProfiledOperator, weight: tuple[int, ...] | None) -> OperatorWork:
    """Return the work of a node; `weight` is the shape of its weight, if it has one."""
    datatype, shape = operator.writes[0]
    elements = math.prod(shape)
    macs = 0
    if weight is not None:
        outputs = shape[-1] if operator.kind in _MATRIX_PRODUCTS else weight[0]
        macs = elements * math.prod(weight) // outputs
    return OperatorWork(
        name=operator.name,
        operator=operator.kind,
        reads=operator.reads[0][0] if operator.reads else "",
        writes=datatype,
        elements=elements,
        macs=macs,
    )


def _weights(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Return the shape of the weight of every convolution and matrix product, by node name."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    weights = {}
    for node in model.graph.node:
        position = _WEIGHT_OPERANDS.get(node.op_type)
        if position is not None and node.input[position] in shapes:
            weights[node.name] = shapes[node.input[position]]
    return weights


def _tensor(value: onnx.ValueInfoProto, encoding: TensorEncoding | None) -> TensorSummary:
    tensor = value.type.tensor_type
    shape = tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?"
        for dim in tensor.shape.dim
    )
    return TensorSummary(
        name=value.name, datatype=_datatype(tensor.elem_type), shape=shape, encoding=encoding
    )


def _datatype(element_type: int) -> str:
    """Return numpy's name of an element type, for example "float32"."""
    if element_type == TensorProto.UNDEFINED:
        return ""
    return str(helper.tensor_dtype_to_np_dtype(element_type))


def _count(model: onnx.ModelProto) -> tuple[OperatorCount, ...]:
    """Count operators by name and by the datatype of their first output."""
    datatypes = _datatypes(model)
    return count_operators(
        (f"{node.domain}.{node.op_type}".lstrip("."), datatypes.get(node.output[0], ""))
        for node in model.graph.node
    )


def _datatypes(model: onnx.ModelProto) -> dict[str, str]:
    """Return the datatype of every tensor in the graph, as far as it is known.

    ONNX's type inference stops at ONNX Runtime's own operators. Those for quantized tensors
    (QLinearAdd, QGemm) write the 8-bit type that they read. The others (FusedConv), and the
    standard operators that inference did not reach, write the type of their first input.
    """
    try:
        graph = shape_inference.infer_shapes(model).graph
    except shape_inference.InferenceError as error:
        raise ValueError(str(error)) from error
    datatypes = {tensor.name: _datatype(tensor.data_type) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        datatypes[value.name] = _datatype(value.type.tensor_type.elem_type)
    for node in graph.node:
        read = [datatypes[name] for name in node.input if datatypes.get(name)]
        quantized = [datatype for datatype in read if datatype in INT8]
        for written in (quantized if node.op_type.startswith("Q") else read)[:1]:
            for name in node.output:
                datatypes.setdefault(name, written)
    return datatypes


def _input_encoding(
    model: onnx.ModelProto, initializers: Mapping[str, TensorProto], name: str
) -> TensorEncoding | None:
    """Return the encoding of an input whose only reader quantizes it."""
    readers = [node for node in model.graph.node if name in node.input]
    if len(readers) != 1 or readers[0].op_type != "QuantizeLinear":
        return None
    return _encoding(readers[0], initializers)


def _output_encoding(
    model: onnx.ModelProto, initializers: Mapping[str, TensorProto], name: str
) -> TensorEncoding | None:
    """Return the encoding of an output that a DequantizeLinear writes."""
    writers = [node for node in model.graph.node if name in node.output]
    if len(writers) != 1 or writers[0].op_type != "DequantizeLinear":
        return None
    return _encoding(writers[0], initializers)


def _encoding(
    node: onnx.NodeProto, initializers: Mapping[str, TensorProto]
) -> TensorEncoding | None:
    """Return the encoding of a (De)QuantizeLinear if it is constant and per tensor."""
    operands = [initializers.get(name) for name in node.input[1:3]]
    if len(operands) != 2 or None in operands:
        return None
    scale, zero_point = (numpy_helper.to_array(o) for o in operands if o is not None)
    if scale.size != 1 or zero_point.size != 1:
        return None
    return TensorEncoding(
        datatype=str(zero_point.dtype), scale=float(scale.item()), zero_point=int(zero_point.item())
    )


def _weights_bytes(initializers: Iterable[TensorProto]) -> dict[str, int]:
    sizes: Counter[str] = Counter()
    for tensor in initializers:
        array = numpy_helper.to_array(tensor)
        sizes[str(array.dtype)] += array.nbytes
    return dict(sizes)
