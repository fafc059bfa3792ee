"""The input, and operators that copy values, for LiteRT, which holds images as (1, H, W, C).

Input: nodes of a program and the numbers of their tensors in the file. Output: operators in the
file. A view of an image goes through the order (1, C, H, W), in which PyTorch defines it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema

from mobiledeploy.export.tflite_nodes import pad_value, shape_of, source_of
from mobiledeploy.network import INPUT_NAME

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.fx import Node

    from mobiledeploy.export.tflite_file import TfliteFile
    from mobiledeploy.network import InputFormat

aten = torch.ops.aten

_Operator = schema.BuiltinOperator
_CHANNELS_LAST = (0, 2, 3, 1)  # the axis of (N, C, H, W) at each place of (N, H, W, C)
_CHANNELS_FIRST = (0, 3, 1, 2)

MOVES = (
    aten.cat.default,
    aten.slice.Tensor,
    aten.flatten.using_ints,
    aten.reshape.default,
    aten.pad.default,
    aten.permute.default,
    aten.upsample_nearest2d.vec,
)


def add_move(file: TfliteFile, node: Node, operands: Sequence[int], output: int) -> None:
    """Add the operators of one node of `MOVES`.

    Args:
        file: The file.
        node: The node.
        operands: Numbers of its operands.
        output: Number of its result.
    """
    if node.target is aten.cat.default:
        options = schema.ConcatenationOptionsT()
        options.axis = _axis(node, cast("int", node.args[1]))
        file.add_operator(_Operator.CONCATENATION, operands, output, options, version=2)
    elif node.target is aten.slice.Tensor:
        _add_slice(file, node, operands[0], output)
    elif node.target in (aten.flatten.using_ints, aten.reshape.default):
        _add_reshape(file, node, operands[0], output)
    elif node.target is aten.pad.default:
        left, right, top, bottom, *channels = cast("Sequence[int]", node.args[1])
        amounts = [[0, 0], [top, bottom], [left, right], channels or [0, 0]]
        add_padding(file, node.name, operands[0], output, amounts, pad_value(node))
    elif node.target is aten.permute.default:
        order = cast("list[int]", node.args[1])
        if len(order) == 4:
            order = [_CHANNELS_FIRST[order[axis]] for axis in _CHANNELS_LAST]
        add_transpose(file, f"{node.name}.order", operands[0], output, order)
    else:
        size = file.add_constant(f"{node.name}.size", np.array(shape_of(node)[1:3], np.int32))
        options = schema.ResizeNearestNeighborOptionsT()
        inputs = [operands[0], size]
        code = _Operator.RESIZE_NEAREST_NEIGHBOR
        file.add_operator(code, inputs, output, options, version=2)


def add_padding(
    file: TfliteFile,
    name: str,
    x: int,
    output: int,
    amounts: Sequence[Sequence[int]],
    value: float = 0.0,
) -> None:
    """Pad with zeros or another number.

    Args:
        file: The file.
        name: Name of the operator.
        x: Number of its operand.
        output: Number of its result.
        amounts: What is added before and behind each axis of (N, H, W, C).
        value: The number; the nearest that the datatype has.
    """
    operands = [x, file.add_constant(f"{name}.amounts", np.array(amounts, np.int32))]
    if value == 0:
        file.add_operator(_Operator.PAD, operands, output, schema.PadOptionsT(), version=2)
        return
    operands.append(file.add_value_like(output, f"{name}.value", value))
    file.add_operator(_Operator.PADV2, operands, output, schema.PadV2OptionsT(), version=2)


def add_input(file: TfliteFile, image: Node, input_format: InputFormat) -> tuple[int, int]:
    """Add the network's input.

    Returns:
        Number of the input, and number of its values as (1, H, W, C), which another layout than
        LiteRT's is transposed to.
    """
    shape = shape_of(image)
    if not input_format.is_pixels:
        number = file.add_tensor(INPUT_NAME, shape, np.float32)
        return number, number
    if input_format.layout == "NHWC":
        number = file.add_tensor(INPUT_NAME, shape, np.uint8, scale=1.0)
        return number, number
    planes = tuple(image.meta["val"].shape)
    number = file.add_tensor(INPUT_NAME, planes, np.uint8, scale=1.0)
    pixels = file.add_like(number, f"{INPUT_NAME}.pixels", shape)
    add_transpose(file, f"{INPUT_NAME}.order", number, pixels, _CHANNELS_LAST)
    return number, pixels


def add_transpose(file: TfliteFile, name: str, x: int, output: int, order: Sequence[int]) -> None:
    """Add a transposition."""
    axes = file.add_constant(name, np.array(order, np.int32))
    options = schema.TransposeOptionsT()
    version = 2 if len(order) <= 4 else 5
    file.add_operator(_Operator.TRANSPOSE, [x, axes], output, options, version=version)


def _axis(node: Node, axis: int) -> int:
    """Return where LiteRT has an axis of a node's operand."""
    rank = source_of(node).meta["val"].dim()
    return _CHANNELS_FIRST[axis] if rank == 4 else axis


def _add_slice(file: TfliteFile, node: Node, x: int, output: int) -> None:
    axis, start = (cast("int", each) for each in node.args[1:3])
    begin = np.zeros(node.meta["val"].dim(), np.int32)
    begin[_axis(node, axis)] = start
    size = np.array(shape_of(node), np.int32)
    operands = [
        x,
        file.add_constant(f"{node.name}.begin", begin),
        file.add_constant(f"{node.name}.size", size),
    ]
    version = 2 if len(begin) <= 4 else 5
    file.add_operator(_Operator.SLICE, operands, output, schema.SliceOptionsT(), version=version)


def _add_reshape(file: TfliteFile, node: Node, x: int, output: int) -> None:
    before, after = (tuple(each.meta["val"].shape) for each in (source_of(node), node))
    if len(before) == 4 and any(size != 1 for size in before[2:]):
        first = file.add_like(x, f"{node.name}.channels_first", shape=before)
        add_transpose(file, f"{node.name}.order", x, first, _CHANNELS_FIRST)
        x = first
    is_image = len(after) == 4 and any(size != 1 for size in after[2:])
    result = file.add_like(output, f"{node.name}.values", shape=after) if is_image else output
    shape = np.array(after if is_image else shape_of(node), np.int32)
    options: Any = schema.ReshapeOptionsT()
    options.newShape = shape
    constant = file.add_constant(f"{node.name}.shape", shape)
    file.add_operator(_Operator.RESHAPE, [x, constant], result, options)
    if is_image:
        add_transpose(file, f"{node.name}.order_back", result, output, _CHANNELS_LAST)
