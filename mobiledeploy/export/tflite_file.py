"""Build the flatbuffer of a `.tflite` file: tensors, operators, metadata.

Input: numpy arrays and the schema's option objects. Output: the bytes of the file.
Source: tensorflow/lite/schema/schema.fbs, through the Python bindings that come with LiteRT.
Invariant: the same calls give the same bytes.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

_SCHEMA_VERSION = 3
_IDENTIFIER = b"TFL3"
_ALIGNMENT = 16  # of constants in the file, which runtimes map into memory
_LAST_OLD_CODE = 127  # operators with larger codes are unknown to the oldest runtimes
_TYPES: dict[np.dtype[Any], int] = {
    np.dtype(np.float32): schema.TensorType.FLOAT32,
    np.dtype(np.int8): schema.TensorType.INT8,
    np.dtype(np.uint8): schema.TensorType.UINT8,
    np.dtype(np.int32): schema.TensorType.INT32,
}


class TfliteFile:
    """Collects the tensors and operators of one network, in the order in which they run."""

    def __init__(self) -> None:
        self._tensors: list[Any] = []
        self._buffers: list[_Buffer] = [_Buffer()]  # the first one means "no constant"
        self._operators: list[Any] = []
        self._codes: dict[tuple[int, int], int] = {}

    def add_tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: type[np.generic],
        *,
        scale: NDArray[np.float32] | np.float32 | float | None = None,
        zero_point: int = 0,
        axis: int = 0,
    ) -> int:
        """Add a tensor and return its number.

        Args:
            name: Its name.
            shape: Its shape, images as (1, H, W, C).
            dtype: float32, int8, uint8 or int32.
            scale: Its scale, or one per channel; None if it is not quantized.
            zero_point: Its zero-point.
            axis: The axis of the channels.
        """
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name, list(shape), 0
        tensor.type = _TYPES[np.dtype(dtype)]
        if scale is not None:
            encoding = schema.QuantizationParametersT()
            encoding.scale = np.atleast_1d(np.asarray(scale, np.float32))
            encoding.zeroPoint = np.full(encoding.scale.shape, zero_point, np.int64)
            encoding.quantizedDimension = axis
            tensor.quantization = encoding
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def add_constant(self, name: str, values: NDArray[Any], **encoding: Any) -> int:
        """Add a constant tensor and return its number; `encoding` as in `add_tensor`."""
        number = self.add_tensor(name, values.shape, values.dtype.type, **encoding)
        self._tensors[number].buffer = self._add_buffer(values.tobytes())
        return number

    def add_like(self, number: int, name: str, shape: Sequence[int] | None = None) -> int:
        """Add a tensor with the datatype and encoding of another one, and its shape by default."""
        tensor = copy.copy(self._tensors[number])
        tensor.name, tensor.buffer = name, 0
        tensor.shape = tensor.shape if shape is None else list(shape)
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def add_value_like(self, number: int, name: str, value: float) -> int:
        """Add a constant of one value with the datatype and encoding of another tensor.

        A value outside of the datatype's range becomes the nearest one inside.
        """
        tensor = copy.copy(self._tensors[number])
        dtype: np.dtype[Any] = next(each for each, kind in _TYPES.items() if kind == tensor.type)
        if tensor.quantization is not None:
            (scale,), (zero_point,) = tensor.quantization.scale, tensor.quantization.zeroPoint
            value = np.rint(np.float32(value) / scale) + zero_point
        limits: Any = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
        values = np.clip(np.array([value]), limits.min, limits.max).astype(dtype)
        tensor.name, tensor.shape = name, [1]
        tensor.buffer = self._add_buffer(values.tobytes())
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def rename(self, number: int, name: str) -> None:
        """Change the name of a tensor."""
        self._tensors[number].name = name

    def add_operator(
        self,
        code: int,
        inputs: Sequence[int],
        outputs: int | Sequence[int],
        options: Any = None,
        *,
        version: int = 1,
    ) -> None:
        """Add an operator.

        Args:
            code: A `schema.BuiltinOperator`.
            inputs: Numbers of its inputs.
            outputs: Number of its output, or numbers of several.
            options: The schema's object of its options, for example `schema.AddOptionsT()`; None
                if it has none.
            version: The operator's version, which says what a runtime has to support.
        """
        operator = schema.OperatorT()
        operator.opcodeIndex = self._codes.setdefault((code, version), len(self._codes))
        operator.inputs = list(inputs)
        operator.outputs = [outputs] if isinstance(outputs, int) else list(outputs)
        if options is not None:
            kind = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            operator.builtinOptions = options
        self._operators.append(operator)

    def serialize(
        self, inputs: Sequence[int], outputs: Sequence[int], metadata: Mapping[str, bytes]
    ) -> bytes:
        """Return the file.

        Args:
            inputs: Numbers of the network's inputs.
            outputs: Numbers of its outputs.
            metadata: Named bytes to store beside the network.
        """
        graph = schema.SubGraphT()
        graph.name, graph.tensors, graph.operators = "main", self._tensors, self._operators
        graph.inputs, graph.outputs = list(inputs), list(outputs)
        model = schema.ModelT()
        model.version, model.description = _SCHEMA_VERSION, "mobiledeploy"
        model.operatorCodes = [_operator_code(*key) for key in self._codes]
        model.subgraphs = [graph]
        model.metadata = [self._metadata(name, data) for name, data in metadata.items()]
        model.buffers = self._buffers
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), _IDENTIFIER)
        return bytes(builder.Output())

    def _metadata(self, name: str, data: bytes) -> Any:
        entry = schema.MetadataT()
        entry.name, entry.buffer = name, self._add_buffer(data)
        return entry

    def _add_buffer(self, data: bytes) -> int:
        self._buffers.append(_Buffer(data))
        return len(self._buffers) - 1


def _operator_code(code: int, version: int) -> Any:
    entry = schema.OperatorCodeT()
    entry.builtinCode, entry.version = code, version
    entry.deprecatedBuiltinCode = min(code, _LAST_OLD_CODE)
    return entry


class _Buffer(schema.BufferT):  # type: ignore[misc]  # the schema's bindings are untyped
    """The bytes of a constant, aligned as the schema demands; its own `Pack` ignores that."""

    def __init__(self, data: bytes | None = None) -> None:
        super().__init__()
        self._bytes = data

    def Pack(self, builder: Any) -> Any:  # noqa: N802 - the name in the schema's bindings
        """Write the bytes and return their position."""
        if self._bytes is not None:
            builder.StartVector(1, len(self._bytes), _ALIGNMENT)
            builder.head -= len(self._bytes)
            builder.Bytes[builder.head : builder.head + len(self._bytes)] = self._bytes
            position = builder.EndVector()
        schema.BufferStart(builder)
        if self._bytes is not None:
            schema.BufferAddData(builder, position)
        return schema.BufferEnd(builder)
