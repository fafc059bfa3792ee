"""The head of a checkpoint: the linear layers behind its convolutions, and the norms among them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobiledeploy.models.head import HeadLayer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mobiledeploy.checkpoints.layers import Layer

_UNKNOWN = "ACTIVATION"


def head_layers(layers: Sequence[Layer]) -> list[Layer]:
    """Return the layers of a checkpoint's head, in order.

    A norm in front of the first linear layer belongs to the head if it is not that of a
    convolution: if another norm precedes it.
    """
    linear = [at for at, layer in enumerate(layers) if _is_linear(layer)]
    if not linear:
        return []
    first = linear[0]
    if first >= 2 and layers[first - 1].is_norm and layers[first - 2].is_norm:
        first -= 1
    return list(layers[first:])


def head_of(layers: Sequence[Layer]) -> tuple[HeadLayer, ...]:
    """Return the head that the tensors show: without activations and dropout."""
    return tuple(
        HeadLayer("linear", layer.shape[0], "bias" in layer.tensors)
        if _is_linear(layer)
        else HeadLayer("batchnorm")
        for layer in head_layers(layers)
    )


def are_parallel(layers: Sequence[Layer]) -> bool:
    """Return whether a head is several linear layers that take the same number of values."""
    linear = all(_is_linear(layer) for layer in layers)
    return linear and len(layers) > 1 and len({layer.shape[1] for layer in layers}) == 1


def is_chain(layers: Sequence[Layer]) -> bool:
    """Return whether every layer of a head takes as many values as the one before it gives."""
    sizes = [(layer.shape[1] if _is_linear(layer) else layer.shape[0]) for layer in layers]
    return all(before.shape[0] == size for before, size in zip(layers, sizes[1:], strict=False))


def described_head(layers: Sequence[HeadLayer]) -> str:
    """Return a head as `parse_head` reads it, with a placeholder for each unknown activation.

    An activation stands behind a linear layer and the BatchNorm that follows it. Where the
    BatchNorm is behind the activation, it is moved by whoever knows that.
    """
    parts: list[str] = []
    for index, layer in enumerate(layers):
        is_later = layer.size and any(before.size for before in layers[:index])
        if is_later:
            parts.append(_UNKNOWN)
        parts.append(str(layer))
    return ",".join(parts)


def _is_linear(layer: Layer) -> bool:
    return layer.is_map and layer.tensors["weight"].ndim == 2
