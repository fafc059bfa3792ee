"""Which units compute in float, once some layers are kept there.

A *layer* is a unit with a weight. It is int8, or it is kept in float. Units without a weight follow
what they read: where everything that reaches an addition, a pool or a hard-swish is float, it
computes in float too; otherwise in integers.

An int8 unit reads codes and writes codes. A value is therefore quantized where an int8 unit makes
it or reads it, and passes as it is between two that compute in float.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from mobiledeploy.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from torch.fx import Node

    from mobiledeploy.graph.aten_graph import FusedOp
    from mobiledeploy.network import QuantRecipe


def layer_name(op: FusedOp) -> str:
    """Return what people call a layer: its module, for example "features.3.conv.2"."""
    stack = op.operator.meta.get("nn_module_stack", {})
    modules = [path for path, _ in stack.values() if path]
    return modules[-1] if modules else op.operator.name


def require_layers(ops: Sequence[FusedOp], recipe: QuantRecipe) -> None:
    """Raise unless the layers that a recipe keeps in float exist, and others are left for int8.

    Raises:
        UsageError: a layer is unknown, all are kept, or the recipe learns its rounding.
    """
    names = [layer_name(op) for op in ops if op.has_weight]
    unknown = [name for name in recipe.float_layers if name not in names]
    if unknown:
        near = difflib.get_close_matches(unknown[0], names, n=3, cutoff=0.3)
        raise UsageError(
            f"There is no layer {unknown[0]!r} to keep in float.",
            remedy="`mobiledeploy sensitivity` lists the layers. Near: "
            f"{', '.join(near) or names[0]}.",
        )
    if len(set(recipe.float_layers)) == len(names):
        raise UsageError(
            f"All {len(names)} layers would be kept in float; nothing is left for int8.",
            remedy="Keep fewer, or export without --int8.",
        )
    if recipe.float_layers and recipe.rounding == "learned":
        raise UsageError(
            "Rounding can only be learned (--ptq best) where every layer is int8.",
            remedy="Use --ptq balanced with layers in float.",
        )


def float_ops(ops: Sequence[FusedOp], kept: Collection[str]) -> frozenset[str]:
    """Return the names of the operators of all units that compute in float.

    Args:
        ops: Of the network, in topological order.
        kept: Names of layers (`layer_name`).
    """
    kept_operators = {op.operator for op in ops if op.has_weight and layer_name(op) in kept}
    floating: set[str] = {node.name for node in kept_operators}
    made_in_float: set[Node] = set()
    for op in ops:
        if not op.has_weight:
            in_float = (n in made_in_float or n.op == "placeholder" for n in op.activations)
            if all(in_float) and (not op.moves_values or _only_kept_read(op, kept_operators)):
                floating.add(op.operator.name)
        if op.operator.name in floating:
            made_in_float.add(op.output)
    return frozenset(floating)


def _only_kept_read(op: FusedOp, kept: Collection[Node]) -> bool:
    """Return whether nothing int8 reads what a unit has moved: then it need not move codes."""
    return all(user in kept or user.op == "output" for user in op.output.users)
