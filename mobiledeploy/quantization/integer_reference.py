"""The integer reference: what the int8 network computes, by definition.

Input: a `QuantizedModel` and images. Output: logits, and the int8 codes of every layer. Its
operators are those of `integer_operators`.
Invariant: a runtime is correct if its logits equal these bit for bit. PyTorch's eager run of the
graph is no reference, because it rounds float convolutions. Layers that are kept in float are
computed in float64 and rounded to float32 where they are quantized or leave the network; for such a
network no runtime is held to every bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from torch.fx.node import map_aggregate

from mobiledeploy.data.pixels import folded_inputs
from mobiledeploy.errors import ExportError
from mobiledeploy.graph.nodes import clamp_of, module_of
from mobiledeploy.network import INPUT_NAME
from mobiledeploy.quantization.integer_operators import (
    INTEGER_OPERATORS,
    Scaled,
    half_way_distance,
    unrounded,
)
from mobiledeploy.utils.outputs import tensors_of
from mobiledeploy.utils.threads import channels_last

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray
    from torch.fx import Graph, Node

    from mobiledeploy.stages import QuantizedModel

aten = torch.ops.aten
quantized = torch.ops.quantized_decomposed

_QUANTIZE = quantized.quantize_per_tensor.default
_QUANTIZERS = (
    _QUANTIZE,
    quantized.dequantize_per_tensor.default,
    quantized.dequantize_per_channel.default,
)
_WEIGHTED = (aten.conv2d.default, aten.linear.default)


@dataclass(frozen=True, slots=True)
class Rounding:
    """What one `quantize` node rounded.

    Attributes:
        name: Name of the node.
        value: The integers before rounding; real numbers for the network's input and behind layers
            in float.
        result: The rounded codes, as q - zero_point.
        zero_point: Zero-point of the codes.
    """

    name: str
    value: Scaled | torch.Tensor
    result: Scaled
    zero_point: int


@dataclass(frozen=True, slots=True)
class Codes:
    """The quantized output of one layer: real = (codes - zero_point) * scale.

    Attributes:
        codes: int8, (N, ...).
        scale: Scale of the codes.
        zero_point: Zero-point of the codes.
        half_way: float32, shaped like `codes`: distance of the unrounded number from the nearest
            rounding tie, in steps. A runtime that adds in float can differ only where it is near 0.
    """

    codes: NDArray[np.int8]
    scale: float
    zero_point: int
    half_way: NDArray[np.float32]

    @property
    def real(self) -> NDArray[np.float32]:
        """Return the real numbers."""
        steps = self.codes.astype(np.float32) - np.float32(self.zero_point)
        return steps * np.float32(self.scale)


class LayerOperator(NamedTuple):
    """The operator whose result a `quantize` node rounds.

    Attributes:
        name: Name of the operator's node.
        module: The module that it was traced in; "" for the input.
    """

    name: str
    module: str

    @property
    def title(self) -> str:
        """Return module and operator, for example "classifier.1 linear"."""
        return f"{self.module} {self.name}".strip()


class IntegerReference:
    """Runs a `QuantizedModel` by its definition; a `Runner` like any runtime.

    Accepts batches of any size, from several threads at a time.

    Attributes:
        logit_step: Scale of the logits; None if they are computed in float, or if there are several
            outputs.
        exact: Whether every layer is int8, so that a runtime can be held to every bit.
        operators: The operator that each `quantize` node rounds, by the name of that node.
    """

    name = "integer reference"

    def __init__(self, model: QuantizedModel) -> None:
        self._module = model.program.module(check_guards=False)
        self._integer_constants = _constants(_Interpreter(self._module))
        self.operators = _operators(self._module.graph)
        self._image = model.info.input
        self._names = [output.name for output in model.info.outputs]
        first, *others = model.output_encodings
        self.logit_step = None if others or first is None else first.scale
        self.exact = not model.recipe.float_layers

    def run(
        self,
        inputs: Mapping[str, NDArray[Any]],
        on_rounding: Callable[[Rounding], object] | None = None,
    ) -> dict[str, NDArray[np.float32]]:
        """Return the outputs by name for {"input": (N, C, H, W), or pixels as an app writes them}.

        Args:
            inputs: The images.
            on_rounding: Called with what every `quantize` node rounded, in topological order.
                Tensors that it does not keep are freed at once.
        """
        planes = channels_last(folded_inputs(inputs[INPUT_NAME], self._image))
        interpreter = _Interpreter(self._module)
        interpreter.on_rounding = on_rounding
        with torch.no_grad():
            result: object = interpreter.run(planes, initial_env=dict(self._integer_constants))
        values = result if isinstance(result, list | tuple) else (result,)
        arrays = (_real(value).float().contiguous().numpy() for value in values)
        return dict(zip(self._names, arrays, strict=True))

    def run_in_float(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """Return the logits of PyTorch, which computes in float between quantize and dequantize.

        Clients that do not fuse these operators compute like this.
        """
        planes = channels_last(folded_inputs(inputs[INPUT_NAME], self._image))
        with torch.no_grad():
            # an exported program itself insists on the batch that it was traced with
            interpreter = torch.fx.Interpreter(self._module)
            result = interpreter.run(planes, initial_env=dict(self._float_constants))
        arrays = (tensor.contiguous().numpy() for tensor in tensors_of(result))
        return dict(zip(self._names, arrays, strict=True))

    @cached_property
    def _float_constants(self) -> Mapping[Node, Any]:
        return _constants(torch.fx.Interpreter(self._module))

    def layers(self, images: NDArray[Any]) -> dict[str, Codes]:
        """Return the output of every `quantize` node, in topological order; images as in `run`."""
        layers: dict[str, Codes] = {}

        def keep(rounding: Rounding) -> None:
            layers[rounding.name] = _as_codes(rounding)

        self.run({INPUT_NAME: images}, keep)
        return layers

    def roundings(self, images: NDArray[Any]) -> list[Rounding]:
        """Return what every `quantize` node rounded, in topological order; images as in `run`."""
        roundings: list[Rounding] = []
        self.run({INPUT_NAME: images}, roundings.append)
        return roundings


def _constants(interpreter: torch.fx.Interpreter) -> dict[Node, Any]:
    """Return the values that depend on no image, such as dequantized weights."""
    values: dict[Node, Any] = {}
    interpreter.env = values
    for node in interpreter.graph.nodes:
        sources = node.all_input_nodes
        is_known = bool(sources) and all(source in values for source in sources)
        if node.op == "get_attr" or (node.op == "call_function" and is_known):
            values[node] = interpreter.run_node(node)
    return values


def _operators(graph: Graph) -> dict[str, LayerOperator]:
    """Return the operator that each `quantize` node rounds, by the name of that node."""
    operators = {}
    for node in graph.find_nodes(op="call_function", target=_QUANTIZE):
        source = node.args[0]
        if clamp_of(source) is not None:
            source = source.args[0]
        operators[node.name] = LayerOperator(source.name, module_of(source))
    return operators


class _Interpreter(torch.fx.Interpreter):
    """Runs the graph's operators in integers.

    Attributes:
        on_rounding: Called with what every `quantize` node rounded, if it is not None.
    """

    on_rounding: Callable[[Rounding], object] | None = None

    def run_node(self, n: Node) -> object:
        result = super().run_node(n)
        if self.on_rounding is not None and n.target is _QUANTIZE:
            (value, _, zero_point, *_), _ = self.fetch_args_kwargs_from_env(n)
            self.on_rounding(Rounding(n.name, value, result, int(zero_point)))
        return result

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        if target not in INTEGER_OPERATORS:
            raise ExportError(f"The integer reference does not define the operator {target}.")
        if _is_float(target, args):
            real = cast("Any", lambda value: _real(value) if _is_value(value) else value)
            return target(*map_aggregate(args, real), **kwargs)
        return INTEGER_OPERATORS[target](*args, **kwargs)


def _is_float(target: object, args: tuple[Any, ...]) -> bool:
    """Return whether an operator computes in float.

    A layer does if its weight is float, any other operator if it reads real numbers.
    """
    if target in _QUANTIZERS:
        return False
    operand = args[1 if target in _WEIGHTED else 0]
    if target is aten.cat.default:
        operand = operand[0]
    return isinstance(operand, torch.Tensor)


def _is_value(value: object) -> bool:
    return isinstance(value, Scaled | torch.Tensor)


def _real(value: Scaled | torch.Tensor) -> torch.Tensor:
    """Return the real numbers, in float64."""
    return (value.real if isinstance(value, Scaled) else value).double()


def _as_codes(rounding: Rounding) -> Codes:
    """Return the codes that `quantize` made."""
    result = rounding.result
    steps = unrounded(rounding.value, result.scale)
    return Codes(
        codes=(result.values + rounding.zero_point).to(torch.int8).numpy(),
        scale=float(result.scale),
        zero_point=rounding.zero_point,
        half_way=half_way_distance(steps).numpy(),
    )
