"""Run the layers of an `.onnx` separately, each on int8 codes that the caller provides.

Input: a quantized `.onnx` and the names of its code tensors (the outputs of QuantizeLinear). The
graph is cut at each of them: what a layer writes becomes a graph output, what the next layer reads
a graph input. So a difference stays in the layer that causes it, instead of being amplified by the
layers that follow. Apart from the cuts, the graph and its constants are those of the file.

The file may have more channels than the network, because ONNX Runtime is faster at multiples of 16.
The extra channels are fed with zeros, and their outputs are dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, helper, numpy_helper, shape_inference

from mobiledeploy.errors import ArtifactError, RuntimeFailedError
from mobiledeploy.network import INPUT_NAME
from mobiledeploy.runtimes.onnxruntime import ORT_ERRORS, open_session

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_INPUT = "{}/input"
_TO_UINT8 = 128
"""Activations are int8 in the network and uint8 in the file: the same codes plus 128."""


class OnnxProbe:
    """An `.onnx` model, cut into its layers.

    Args:
        path: The model.
        names: Names of code tensors; names that the graph does not have are ignored.
        optimize: False switches all graph optimizations off.

    Attributes:
        names: The tensors where the graph was cut, in the graph's order.

    Raises:
        ArtifactError: ONNX Runtime does not accept the file, or its graph has none of these
            tensors.
    """

    def __init__(self, path: Path, names: Sequence[str], *, optimize: bool) -> None:
        self._path = path
        try:
            model = onnx.load(path)
        except (DecodeError, OSError, ValueError) as error:
            raise ArtifactError(f"{path} is not an ONNX model: {error}.") from error
        self._widths = _widths(model, names)
        self.names = _cut(model, names)
        if not self.names:
            raise ArtifactError(
                f"{path} has none of the network's {len(names)} code tensors: it holds another"
                " network, or another tool wrote it.",
                remedy="Export it again with `mobiledeploy export`.",
            )
        content = model.SerializeToString()
        self._session = open_session(content, path, threads=1, optimize=optimize)

    def run(
        self, images: NDArray[Any], codes: Mapping[str, NDArray[np.int8]]
    ) -> dict[str, NDArray[np.int8]]:
        """Run every layer on the given codes; return the codes that each layer computes.

        Args:
            images: The input of the first layer, as the graph takes it.
            codes: The inputs of the other layers, by tensor name; at least those of `names`.

        Returns:
            int8 codes by tensor name, shaped like those in `codes`.

        Raises:
            RuntimeFailedError: the graph does not take inputs of these shapes.
        """
        given = {_INPUT.format(name): self._as_in_file(name, codes[name]) for name in self.names}
        try:
            found = self._session.run(self.names, {INPUT_NAME: images} | given)
        except ORT_ERRORS as error:
            raise RuntimeFailedError(
                f"{self._path} does not take the network's codes: {error}"
            ) from error
        return {
            name: (array.astype(np.int16) - _TO_UINT8).astype(np.int8)[:, : codes[name].shape[1]]
            for name, array in zip(self.names, found, strict=True)
        }

    def _as_in_file(self, name: str, codes: NDArray[np.int8]) -> NDArray[np.uint8]:
        """Return codes as the file has them: uint8, with the file's number of channels."""
        shifted = (codes.astype(np.int16) + _TO_UINT8).astype(np.uint8)
        width, zero_point = self._widths.get(name, (0, 0))
        missing = width - codes.shape[1]
        if missing <= 0:
            return shifted
        margins = [(0, missing if axis == 1 else 0) for axis in range(codes.ndim)]
        return np.pad(shifted, margins, constant_values=zero_point)


def _widths(model: onnx.ModelProto, names: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return the channels of each code tensor in the file, and its zero-point."""
    wanted = set(names)
    graph = shape_inference.infer_shapes(model).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    zeros = {}
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and len(node.input) == 3:
            zero = constants.get(node.input[2])
            for name in {node.input[0], node.output[0]} & wanted:
                zeros[name] = int(numpy_helper.to_array(zero).flat[0]) if zero is not None else 0
    return {
        value.name: (value.type.tensor_type.shape.dim[1].dim_value, zeros.get(value.name, 0))
        for value in graph.value_info
        if value.name in wanted and len(value.type.tensor_type.shape.dim) > 1
    }


def _cut(model: onnx.ModelProto, names: Sequence[str]) -> list[str]:
    """Cut the graph in place; return the names of the tensors where it was cut."""
    wanted = set(names)
    graph = model.graph
    cuts = [name for node in graph.node for name in node.output if name in wanted]
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name in wanted and name in cuts:
                node.input[position] = _INPUT.format(name)
    for name in cuts:
        given = helper.make_tensor_value_info(_INPUT.format(name), TensorProto.UINT8, None)
        graph.input.append(given)
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.UINT8, None))
    return cuts
