"""The outputs of a network from code: their names, tasks and shapes.

Input: a module, the shape of its input, and what the user says about its outputs. Output: an
`OutputSpec` for each tensor that the module returns, in order. A dict has names; the tensors of a
tuple or list are called output_0, output_1, ... where the user gives no others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast, get_args

import torch

from mobiledeploy.errors import UsageError
from mobiledeploy.models.final_activations import final_activations
from mobiledeploy.models.spec import default_task
from mobiledeploy.network import OUTPUT_NAME, Activation, OutputSpec, Task
from mobiledeploy.utils.outputs import tensors_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

_TASKS = get_args(Task)
_MAP_RANK = 3


def outputs_of_module(
    module: nn.Module, shape: tuple[int, ...], given: Sequence[str], task: Task | None
) -> tuple[OutputSpec, ...]:
    """Return the outputs of a module, with the activations that they end in.

    Args:
        module: The network, in eval mode.
        shape: Shape of its input, (1, C, H, W).
        given: "NAME:TASK" or "NAME" for each output, in order, or in any order for those of a dict;
            empty to keep all names and guess all tasks.
        task: The task of the only output, or of the first one.

    Raises:
        UsageError: the module refuses such an image, returns anything but tensors (1, ...), or has
            other outputs than those that are given.
    """
    result = _run(module, shape)
    tensors = _tensors(module, result)
    with torch.no_grad():
        activations = final_activations(module, torch.zeros(shape))
    names = _names(result, len(tensors))
    tasks = _tasks(names, given, named=isinstance(result, Mapping))
    found = []
    each_output = zip(tensors, tasks, activations, strict=True)
    for number, (tensor, (name, of_name), activation) in enumerate(each_output):
        dimensions = tuple(tensor.shape[1:])
        wanted = of_name or (task if number == 0 else None)
        if wanted is None and activation == "normalize" and len(dimensions) == 1:
            wanted = "embedding"
        output = OutputSpec(
            size=math.prod(dimensions),
            dimensions=dimensions if len(dimensions) > 1 else (),
            task=_checked_task(name, wanted, dimensions),
            name=name,
        )
        found.append(output.with_activation(activation))
    return tuple(found)


def require_activation(output: OutputSpec, activation: str) -> None:
    """Raise UsageError unless an output can have an activation behind it."""
    if activation not in get_args(Activation):
        raise UsageError(
            f"{activation!r} is no activation; expected one of {', '.join(get_args(Activation))}."
        )
    if activation != "none" and output.activation != "none":
        raise UsageError(
            f"--activation {activation} follows the logits; the output {output.name} ends in"
            f" {output.activation} already.",
            remedy="Leave --activation out.",
        )
    if activation not in {"none", "codes"} and output.dimensions:
        raise UsageError(
            f"--activation {activation} needs one vector of scores; the output {output.name} has"
            f" the shape {output.shape}."
        )
    if activation in {"softmax", "top5"} and output.size == 1:
        raise UsageError(
            f"--activation {activation} needs two outputs or more: the softmax of one is always 1.",
            remedy="Pass --activation sigmoid.",
        )


def is_plain(outputs: Sequence[OutputSpec]) -> bool:
    """Return whether there is one output, (N, values), of the usual name."""
    first, *others = outputs
    return not others and not first.dimensions and first.name == OUTPUT_NAME


def _run(module: nn.Module, shape: tuple[int, ...]) -> object:
    try:
        with torch.no_grad():
            return module(torch.zeros(shape))
    except Exception as error:  # the module's own code may raise anything
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise UsageError(
            f"{type(module).__name__} refuses an input of the shape {shape}: {reason}",
            remedy="Pass the input that it was trained with: --resolution, --in-channels.",
        ) from error


def _tensors(module: nn.Module, result: object) -> tuple[torch.Tensor, ...]:
    name = type(module).__name__
    remedy = "Return one tensor, or a tuple, list or dict of tensors, with the images in front."
    try:
        tensors = tensors_of(result)
    except TypeError as error:
        raise UsageError(
            f"{name} returns a {type(result).__name__}: {error}; expected tensors.", remedy=remedy
        ) from error
    for tensor in tensors:
        if tensor.dim() < 2 or len(tensor) != 1:
            raise UsageError(
                f"{name} returns a tensor {tuple(tensor.shape)}; expected (1, ...) for one image.",
                remedy=remedy,
            )
    return tensors


def _names(result: object, count: int) -> list[str]:
    """Return the names that a module gives its outputs."""
    if isinstance(result, Mapping) and len(result) == count:
        return [str(name) for name in result]
    return [OUTPUT_NAME] if count == 1 else [f"output_{number}" for number in range(count)]


def _tasks(
    names: Sequence[str], given: Sequence[str], *, named: bool
) -> list[tuple[str, str | None]]:
    """Return the final name of each output, and its task if it is given.

    Raises:
        UsageError: the number of outputs, or one of their names, is another one.
    """
    if not given:
        return [(name, None) for name in names]
    pairs = [(name, task or None) for name, _, task in (each.partition(":") for each in given)]
    if named and {name for name, _ in pairs} == set(names):
        return [(name, dict(pairs)[name]) for name in names]
    if named or len(pairs) != len(names) or len(dict(pairs)) != len(pairs):
        raise UsageError(
            f"--output names {', '.join(name for name, _ in pairs)}; the network has"
            f" {len(names)} outputs: {', '.join(names)}.",
            remedy="Pass --output NAME:TASK once for each output.",
        )
    return pairs


def _checked_task(name: str, task: str | None, dimensions: tuple[int, ...]) -> Task:
    """Return a task that fits the shape of an output.

    Raises:
        UsageError: there is no such task, or it needs another shape.
    """
    if not name.isidentifier():
        raise UsageError(f"{name!r} is no name of an output; expected letters, digits and _.")
    if task is None:
        if len(dimensions) == 1:
            return default_task(dimensions[0])
        return "map" if len(dimensions) == _MAP_RANK else "regression"
    if task not in _TASKS:
        raise UsageError(f"{task!r} is no task; expected one of {', '.join(_TASKS)}.")
    needed = {"map": (_MAP_RANK,), "classes": (1,), "embedding": (1,)}.get(task)
    if needed is not None and len(dimensions) not in needed:
        raise UsageError(
            f"The output {name} has the shape {dimensions} for one image, which is no {task}.",
            remedy=f"Pass --output {name}:regression, or return another shape.",
        )
    return cast("Task", task)
