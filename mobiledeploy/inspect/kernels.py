"""What runs outside of a `.pte`'s delegates: ExecuTorch's own kernels, called one by one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mobiledeploy.inspect.coverage import OperatorWork
from mobiledeploy.inspect.tensors import datatype_of, shape_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mobiledeploy.artifact.flatbuffer import Generated

# Which argument is the weight, and along which of its axes products are not summed up.
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
    """Yield the full name of each kernel that is called, with the datatype that it writes.

    The kernels are those of torch's out-variants: the last argument is what they write.
    """
    for call in instructions(plan):
        if hasattr(call, "opIndex"):
            operator = plan.operators[call.opIndex]
            name = f"{operator.name.decode()}.{operator.overload.decode()}".rstrip(".")
            yield name, datatype_of(plan.values[call.args[-1]].val)


def kernel_work(plan: Generated) -> Iterator[OperatorWork]:
    """Yield what each computing kernel does."""
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
            macs=elements * _terms(plan, call, name),
        )


def _terms(plan: Generated, call: Generated, name: str) -> int:
    """Return how many products a kernel sums up per element."""
    if name not in _WEIGHTS:
        return 0
    position, apart = _WEIGHTS[name]
    shape = shape_of(plan.values[call.args[position]].val)
    return math.prod(size for axis, size in enumerate(shape) if axis != apart)
