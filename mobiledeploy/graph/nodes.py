"""What a node of an ATen graph says: its arguments, its module, its line of code."""

from __future__ import annotations

import operator
import re
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

if TYPE_CHECKING:
    from torch.fx import Graph, GraphModule, Node

aten = torch.ops.aten

_HARDTANH = (aten.hardtanh.default, aten.relu6.default)
_FRAME = re.compile(r'File "([^"]+)", line (\d+), in [^\n]+\n([^\n]*)')
_TORCH = Path(torch.__file__).parent


def outputs_of(graph: Graph) -> tuple[Node, ...]:
    """Return the nodes that are the outputs of a graph, in order."""
    (output,) = graph.find_nodes(op="output")
    (result,) = output.args
    return tuple(result) if isinstance(result, list | tuple) else (result,)


def parameter(traced: GraphModule, node: object) -> torch.nn.Parameter:
    """Return the parameter that a `get_attr` node reads."""
    assert isinstance(node, torch.fx.Node), node
    assert node.op == "get_attr", node
    return cast("torch.nn.Parameter", operator.attrgetter(str(node.target))(traced))


def groups_of(node: Node) -> int:
    """Return the number of groups of a convolution, and 1 for a linear operator."""
    return cast("int", node.args[6]) if len(node.args) > 6 else 1


def only_user(node: Node) -> Node | None:
    """Return the one node that reads a node's value; None if none or several do."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def clamp_of(node: Node) -> tuple[float, float] | None:
    """Return the bounds (low, high) of a ReLU-like activation; None for any other node."""
    if node.target is aten.relu.default:
        return (0.0, float("inf"))
    if node.target in _HARDTANH:
        bounds = node.args[1:] or (0.0, 6.0)
        return (float(cast("float", bounds[0])), float(cast("float", bounds[1])))
    return None


def is_plain_max_pool(node: Node) -> bool:
    """Return whether a max pool has neither dilation nor windows that end outside the image."""
    dilation, ceil_mode = (*node.args[4:], 1, False)[:2]
    return dilation in (1, [1], [1, 1]) and not ceil_mode


def is_zero_padding(node: Node) -> bool:
    """Return whether a pad adds zeros, instead of reflecting, cropping or adding another value."""
    amounts, settings = cast("list[int]", node.args[1]), node.args[2:]  # mode and value, if any
    return min(amounts) >= 0 and all(each in ("constant", None, 0.0) for each in settings)


def module_of(node: Node) -> str:
    """Return the module that a node was traced in, for example "features.3.conv"; "" for none."""
    modules = [name for name, _ in node.meta.get("nn_module_stack", {}).values()]
    return modules[-1] if modules else ""


def describe_node(node: Node) -> str:
    """Return an operator, its module and its line of code, as far as they are known.

    For example: aten.silu in module features.1 (net.py, line 34: return F.silu(x)).
    """
    module = module_of(node)
    where = f" in module {module}" if module else f" (node {node.name})"
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    own = [frame for frame in frames if _TORCH not in Path(frame[0]).parents]
    code = "".join(f" ({path}, line {line}: {text.strip()})" for path, line, text in own[-1:])
    return f"{str(node.target).removesuffix('.default')}{where}{code}"
