"""Match a checkpoint's layers to a network's.

Input: the layers of both. Output: pairs. Invariant: every parameter and buffer of the network is
paired exactly once, every tensor of the checkpoint is used exactly once, and shapes agree.
Otherwise an error names the differences.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mobiledeploy.checkpoints.dialects import Dialect
from mobiledeploy.checkpoints.layers import COUNTER, Layer, outlines, signatures
from mobiledeploy.errors import WeightsError

_SHOWN = 5  # differences of each kind that an error lists


@dataclass(frozen=True, slots=True)
class Matched:
    """The layers of a checkpoint and of a network in pairs.

    Attributes:
        pairs: Pairs of (checkpoint layer, network layer).
        by_name: Whether the layers were paired by name; otherwise by structure.
        head: The network's name for each classifier layer that the checkpoint calls otherwise.
    """

    pairs: tuple[tuple[Layer, Layer], ...]
    by_name: bool
    head: Mapping[str, str] = field(default_factory=dict)


def arrange(source: Sequence[Layer], target: Sequence[Layer], dialect: Dialect) -> list[Layer]:
    """Sort a checkpoint's layers into the order of a network's layers.

    If the checkpoint has the network's own names, they decide. Otherwise the dialect's order is
    taken: of several, the one that fits the network, or the first if none does.
    """
    if has_names_of(source, target):
        head = _head(source, target)
        renamed = [Layer(head.get(layer.name, layer.name), layer.tensors) for layer in source]
        position = {layer.name: index for index, layer in enumerate(target)}
        return sorted(renamed, key=lambda layer: position.get(layer.name, len(position)))
    candidates = [order(source) for order in dialect.orders]
    wanted = outlines(target)
    return next((order for order in candidates if outlines(order) == wanted), candidates[0])


def has_names_of(source: Sequence[Layer], target: Sequence[Layer]) -> bool:
    """Return whether most of a checkpoint's layers have names of the network.

    Most rather than all, so that a missing or extra key is reported by name.
    """
    names = {layer.name for layer in target}
    return 2 * sum(layer.name in names for layer in source) > len(source)


def _head(source: Sequence[Layer], target: Sequence[Layer]) -> dict[str, str]:
    """Return the network's names of classifier layers that the checkpoint calls otherwise.

    Only if the checkpoint has all other layers, and as many of the classifier, of the same kinds in
    the same order: a fine-tuned network often has `head` or `classifier` where the published one
    has `classifier.1`, and dropout or activations shift the numbers.
    """
    ours = [layer for layer in target if layer.name.startswith("classifier")]
    body = {layer.name for layer in target} - {layer.name for layer in ours}
    theirs = _in_order([layer for layer in source if layer.name not in body])
    names = {layer.name for layer in theirs}
    if names == {layer.name for layer in ours} or outlines(theirs) != outlines(ours):
        return {}
    return {
        old.name: new.name for old, new in zip(theirs, ours, strict=True) if old.name != new.name
    }


def _in_order(layers: Sequence[Layer]) -> list[Layer]:
    """Sort layers that one Sequential numbers; keep the file's order of others."""
    places = [layer.name.rpartition(".") for layer in layers]
    numbered = all(number.isdecimal() for _, _, number in places)
    if numbered and len({parent for parent, _, _ in places}) == 1:
        return sorted(layers, key=lambda layer: int(layer.name.rpartition(".")[2]))
    return list(layers)


def match(source: Sequence[Layer], target: Sequence[Layer], dialect: Dialect) -> Matched:
    """Pair the layers of a checkpoint with those of a network.

    Args:
        source: The checkpoint's layers, in the file's order.
        target: The network's layers, in the order of their definition.
        dialect: The checkpoint's naming scheme.

    Raises:
        WeightsError: Layers are missing, left over, or of another shape; the text names them.
    """
    by_name = has_names_of(source, target)
    ordered = arrange(source, target, dialect)
    same_names = [layer.name for layer in ordered] == [layer.name for layer in target]
    if signatures(ordered) == signatures(target) and (same_names or not by_name):
        head = _head(source, target) if by_name else {}
        return Matched(tuple(zip(ordered, target, strict=True)), by_name, head)
    raise WeightsError(
        f"The checkpoint does not fit the network: {differences(source, target, dialect)}.",
        remedy="Check that family, width, number of classes and input channels are those of the "
        "checkpoint. Every tensor of the checkpoint and of the network has to be matched.",
    )


def differences(source: Sequence[Layer], target: Sequence[Layer], dialect: Dialect) -> str:
    """Describe the layers that are missing, left over, or of another shape.

    Args:
        source: The checkpoint's layers, in the file's order.
        target: The network's layers, in the order of their definition.
        dialect: The checkpoint's naming scheme.
    """
    ordered = arrange(source, target, dialect)
    compare = _by_name if has_names_of(source, target) else _by_structure
    return "; ".join(compare(ordered, target))


def _by_name(source: Sequence[Layer], target: Sequence[Layer]) -> list[str]:
    """Compare tensors by name."""
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
    """Compare the two sequences of layers."""
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
    """Return the shape of every tensor by its full name, without BatchNorm's counters."""
    return {
        f"{layer.name}.{local}".lstrip("."): tuple(tensor.shape)
        for layer in layers
        for local, tensor in layer.tensors.items()
        if local != COUNTER
    }


def _with_nearest(name: str, others: Sequence[str]) -> str:
    """Append the closest other name, if there is one."""
    near = difflib.get_close_matches(name, others, n=1)
    return f"{name} (nearest: {near[0]})" if near else name


def _with_shape(layer: Layer) -> str:
    """Return a layer's name and the shape of its weight."""
    return f"{layer.name} {layer.shape or sorted(layer.tensors)}"


def _listed(what: str, items: Sequence[str]) -> list[str]:
    """Return one clause with the first few items, or nothing if there are none."""
    if not items:
        return []
    rest = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return [f"{len(items)} {what}: {', '.join(items[:_SHOWN])}{rest}"]
