"""Which of a checkpoint's tensors belongs to which of a network's.

Input: the layers of both. Output: pairs. Invariant: every parameter and every buffer of the network
is paired exactly once, every tensor of the checkpoint is used exactly once, and shapes agree; or an
error names what does not fit.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from mobiledeploy.checkpoints.dialects import Dialect
from mobiledeploy.checkpoints.layers import COUNTER, Layer, outlines, signatures
from mobiledeploy.errors import WeightsError

_SHOWN = 5  # of each kind of difference


@dataclass(frozen=True, slots=True)
class Matched:
    """Layers of a checkpoint and of a network, pairwise.

    Attributes:
        pairs: (checkpoint's, network's).
        by_name: Whether the names are the network's own; otherwise the structure paired them.
    """

    pairs: tuple[tuple[Layer, Layer], ...]
    by_name: bool


def arrange(source: Sequence[Layer], target: Sequence[Layer], dialect: Dialect) -> list[Layer]:
    """Put a checkpoint's layers into the order of a network's, as far as its names tell.

    If they are the network's own names, these decide. Otherwise it is the dialect's order; of
    several, the one that fits the network, and the first if none does.
    """
    if has_names_of(source, target):
        position = {layer.name: index for index, layer in enumerate(target)}
        return sorted(source, key=lambda layer: position.get(layer.name, len(position)))
    candidates = [order(source) for order in dialect.orders]
    wanted = outlines(target)
    return next((order for order in candidates if outlines(order) == wanted), candidates[0])


def has_names_of(source: Sequence[Layer], target: Sequence[Layer]) -> bool:
    """Return whether a checkpoint speaks the network's own names: most of them are among them.

    Most, so that one key too many or too few is reported as just that.
    """
    names = {layer.name for layer in target}
    return 2 * sum(layer.name in names for layer in source) > len(source)


def match(source: Sequence[Layer], target: Sequence[Layer], dialect: Dialect) -> Matched:
    """Pair the layers.

    Args:
        source: Of the checkpoint, in the file's order.
        target: Of the network, in the order of its definition.
        dialect: What the checkpoint speaks.

    Raises:
        WeightsError: naming what is missing, left over, or of another shape.
    """
    by_name = has_names_of(source, target)
    ordered = arrange(source, target, dialect)
    same_names = [layer.name for layer in ordered] == [layer.name for layer in target]
    if signatures(ordered) == signatures(target) and (same_names or not by_name):
        return Matched(tuple(zip(ordered, target, strict=True)), by_name)
    raise WeightsError(
        f"The checkpoint does not fit the network: {differences(source, target, dialect)}.",
        remedy="Check that family, width, number of classes and input channels are the "
        "checkpoint's own; every tensor of it has to be used, and every one of the network filled.",
    )


def differences(source: Sequence[Layer], target: Sequence[Layer], dialect: Dialect) -> str:
    """Say what does not fit: what is missing, left over, or of another shape.

    Args:
        source: Of the checkpoint, in the file's order.
        target: Of the network, in the order of its definition.
        dialect: What the checkpoint speaks.
    """
    ordered = arrange(source, target, dialect)
    compare = _by_name if has_names_of(source, target) else _by_structure
    return "; ".join(compare(ordered, target))


def _by_name(source: Sequence[Layer], target: Sequence[Layer]) -> list[str]:
    """Compare tensor by tensor, by name."""
    theirs, ours = _shapes(source), _shapes(target)
    missing = [name for name in ours if name not in theirs]
    left_over = [name for name in theirs if name not in ours]
    misshapen = [
        f"{name} is {theirs[name]}, expected {ours[name]}"
        for name in ours
        if name in theirs and theirs[name] != ours[name]
    ]
    return [
        *_listed("missing", [_with_nearest(name, left_over) for name in missing]),
        *_listed("left over", [_with_nearest(name, missing) for name in left_over]),
        *_listed("misshapen", misshapen),
    ]


def _by_structure(source: Sequence[Layer], target: Sequence[Layer]) -> list[str]:
    """Compare layer by layer, along the sequences."""
    missing, left_over, misshapen = [], [], []
    codes = difflib.SequenceMatcher(
        a=outlines(source), b=outlines(target), autojunk=False
    ).get_opcodes()
    for code, a, a_end, b, b_end in codes:
        if code == "equal":
            misshapen += [
                f"{theirs.name}.{local} is {shape}, expected {ours.shapes[local]} for {ours.name}"
                for theirs, ours in zip(source[a:a_end], target[b:b_end], strict=True)
                for local, shape in theirs.shapes.items()
                if shape != ours.shapes[local]
            ]
        else:
            left_over += [_with_shape(layer) for layer in source[a:a_end]]
            missing += [_with_shape(layer) for layer in target[b:b_end]]
    return [
        *_listed("missing", missing),
        *_listed("left over", left_over),
        *_listed("misshapen", misshapen),
    ]


def _shapes(layers: Sequence[Layer]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor by its full name, without BN's counters."""
    return {
        f"{layer.name}.{local}".lstrip("."): tuple(tensor.shape)
        for layer in layers
        for local, tensor in layer.tensors.items()
        if local != COUNTER
    }


def _with_nearest(name: str, others: Sequence[str]) -> str:
    """Add the likeliest misspelling, if there is one."""
    near = difflib.get_close_matches(name, others, n=1)
    return f"{name} (nearest: {near[0]})" if near else name


def _with_shape(layer: Layer) -> str:
    """Name a layer and what it holds."""
    return f"{layer.name} {layer.shape or sorted(layer.tensors)}"


def _listed(what: str, items: Sequence[str]) -> list[str]:
    """Return one clause with the first few items, or nothing where there are none."""
    if not items:
        return []
    rest = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return [f"{len(items)} {what}: {', '.join(items[:_SHOWN])}{rest}"]
