"""Which operators compute in float when some layers are kept in float.

Input: the network's operators and the names of the layers to keep in float. Output: the names of
all operators that compute in float.
A layer is an operator with a weight; it is int8 unless it is named. An operator without a weight
(an addition, a pool, a hard-swish) computes in float if everything that it reads is float.
Invariant: int8 operators read codes and write codes, so a value is quantized where an int8 operator
writes it or reads it, and stays float between two float operators.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from mobiledeploy.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from torch.fx import Node

    from mobiledeploy.graph.fused_ops import FusedOp
    from mobiledeploy.stages import QuantRecipe


def require_layers(ops: Sequence[FusedOp], recipe: QuantRecipe) -> None:
    """Raise unless the layers that a recipe keeps in float exist and leave others for int8.

    Raises:
        UsageError: a layer is unknown, all are kept, or the recipe learns its rounding.
    """
    names = [op.layer for op in ops if op.has_weight]
    unknown = [name for name in recipe.float_layers if name not in names]
    if unknown:
        near = difflib.get_close_matches(unknown[0], names, n=3, cutoff=0.3)
        raise UsageError(
            f"There is no layer {unknown[0]!r} to keep in float.",
            remedy="`mobiledeploy sensitivity` lists the layers. Similar names: "
            f"{', '.join(near) or names[0]}.",
        )
    if len(set(recipe.float_layers)) == len(names):
        raise UsageError(
            f"All {len(names)} layers would be kept in float; nothing is left for int8.",
            remedy="Keep fewer layers, or export without --int8.",
        )
    if recipe.float_layers and recipe.rounding == "learned":
        raise UsageError(
            "Learned rounding (--ptq best) needs every layer in int8.",
            remedy="Use --ptq balanced with layers in float.",
        )


def find_float_ops(ops: Sequence[FusedOp], layers: Collection[str]) -> frozenset[str]:
    """Return the names of all operators that compute in float.

    Args:
        ops: Operators of the network, in topological order.
        layers: Names of the layers that are kept in float (`FusedOp.layer`).
    """
    kept = {op.operator for op in ops if op.has_weight and op.layer in layers}
    float_ops: set[str] = {node.name for node in kept}
    float_values: set[Node] = set()
    for op in ops:
        if not op.has_weight:
            reads_float = all(n in float_values or n.op == "placeholder" for n in op.activations)
            if reads_float and (not op.moves_values or _only_float_reads(op, kept)):
                float_ops.add(op.name)
        if op.name in float_ops:
            float_values.add(op.output)
    return frozenset(float_ops)


def _only_float_reads(op: FusedOp, kept: Collection[Node]) -> bool:
    """Return whether only float layers read what a pad or reshape writes."""
    return all(user in kept or user.op == "output" for user in op.output.users)
