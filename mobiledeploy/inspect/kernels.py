"""The kernels of a `.pte` that run outside its delegates: ExecuTorch's own, one by one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mobiledeploy.inspect.coverage import OperatorWork
from mobiledeploy.inspect.tensors import datatype_of, shape_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mobiledeploy.artifact.flatbuffer import Generated

# Position of the weight among the arguments, and its axis of outputs, which is not summed over.
_WEIGHTS = {
    "aten::convolution": (1, 0),
    "aten::linear": (1, 0),
    "aten::addmm": (2, 1),
    "aten::mm": (1, 1),
}
_NOT_COMPUTING = frozenset(
    {
        *("dim_order_ops::_to_dim_order_copy", "dim_order_ops::_clone_dim_order", "aten::_to_copy"),
        *("aten::clone", "aten::view_copy", "aten::permute_copy", "aten::t_copy"),
        *("aten::transpose_copy", "aten::squeeze_copy", "aten::unsqueeze_copy"),
        *("aten::expand_copy", "aten::slice_copy", "aten::select_copy", "aten::as_strided_copy"),
        *("aten::cat", "aten::split_with_sizes_copy", "aten::constant_pad_nd"),
        *(
            "quantized_decomposed::quantize_per_tensor",
            "quantized_decomposed::quantize_per_channel",
        ),
        "quantized_decomposed::dequantize_per_tensor",
        "quantized_decomposed::dequantize_per_channel",
    }
)


def instructions(plan: Generated) -> list[Generated]:
    """Return the calls of a method, in order."""
    return [step.instrArgs for chain in plan.chains for step in chain.instructions]


def kernels(plan: Generated) -> Iterator[tuple[str, str]]:
    """Yield the full name of each kernel call and the datatype of its output.

    The kernels are torch's out-variants, whose last argument is the output.
    """
    for call in instructions(plan):
        if hasattr(call, "opIndex"):
            operator = plan.operators[call.opIndex]
            name = f"{operator.name.decode()}.{operator.overload.decode()}".rstrip(".")
            yield name, datatype_of(plan.values[call.args[-1]].val)


def kernel_work(plan: Generated) -> Iterator[OperatorWork]:
    """Yield the work of each kernel that computes."""
    for index, call in enumerate(instructions(plan)):
        if not hasattr(call, "opIndex"):
            continue
        name = plan.operators[call.opIndex].name.decode()
        if name in _NOT_COMPUTING:
            continue
        written = plan.values[call.args[-1]].val
        elements = math.prod(shape_of(written))
        yield OperatorWork(
            name=f"{name} #{index} {list(shape_of(written))}",
            operator=name,
            reads=datatype_of(plan.values[call.args[0]].val),
            writes=datatype_of(written),
            elements=elements,
            macs=elements * _products_per_element(plan, call, name),
        )


def _products_per_element(plan: Generated, call: Generated, name: str) -> int:
    """Return the number of products that a kernel sums per element."""
    if name not in _WEIGHTS:
        return 0
    position, output_axis = _WEIGHTS[name]
    shape = shape_of(plan.values[call.args[position]].val)
    return math.prod(size for axis, size in enumerate(shape) if axis != output_axis)
