"""Heads behind the pooled features, described in one line: "dropout,linear:256,relu,linear:5".

| layer | meaning |
|---|---|
| `linear:N` | a linear layer with N outputs; `linear:N:nobias` has no bias |
| `batchnorm` | BatchNorm1d |
| `relu`, `relu6`, `hardswish` | an activation |
| `dropout` | dropout; without effect in inference, but it counts in the names of the state dict |

`none` ends the network at the features. Layers are named by their position, like those of an
`nn.Sequential`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torch import nn

from mobiledeploy.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

NONE = "none"
MAX_SIZE = 1_000_000
_MAX_DIGITS = 9
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hardswish": nn.Hardswish,
}
_LINEAR = "linear"
_KINDS = (_LINEAR, "batchnorm", "dropout", *ACTIVATIONS)


class HeadLayer(NamedTuple):
    """One layer of a head: its kind, and outputs and bias of a linear layer."""

    kind: str
    size: int = 0
    bias: bool = True

    def __str__(self) -> str:
        """Return the layer as `parse_head` reads it."""
        if self.kind != _LINEAR:
            return self.kind
        return f"{_LINEAR}:{self.size}{'' if self.bias else ':nobias'}"


def parse_head(text: str) -> tuple[HeadLayer, ...]:
    """Parse the description of a head; empty for `none`.

    Raises:
        UsageError: a layer is unknown, or there is no linear layer.
    """
    if text == NONE:
        return ()
    layers = tuple(_parse_layer(part.strip(), text) for part in text.split(","))
    if not any(layer.kind == _LINEAR for layer in layers):
        raise _refusal(text, f"it has no linear layer; expected one, or {NONE}")
    return layers


def head_outputs(text: str) -> int:
    """Return the number of outputs of a head; 0 for `none`.

    Raises:
        UsageError: see `parse_head`.
    """
    return next((layer.size for layer in reversed(parse_head(text)) if layer.size), 0)


def build_head(text: str, in_features: int) -> nn.Sequential:
    """Build a head for so many features.

    Raises:
        UsageError: see `parse_head`.
    """
    modules: list[nn.Module] = []
    features = in_features
    for kind, size, bias in parse_head(text):
        if kind == _LINEAR:
            modules.append(nn.Linear(features, size, bias=bias))
            features = size
        elif kind == "batchnorm":
            modules.append(nn.BatchNorm1d(features))
        elif kind == "dropout":
            modules.append(nn.Dropout())
        else:
            modules.append(ACTIVATIONS[kind]())
    return nn.Sequential(*modules)


def _parse_layer(part: str, text: str) -> HeadLayer:
    kind, *rest = part.split(":")
    if kind not in _KINDS:
        raise _refusal(text, f"{part!r} is no layer; expected {', '.join(_KINDS)}")
    if kind != _LINEAR:
        if rest:
            raise _refusal(text, f"{part!r} has a size; expected {kind}")
        return HeadLayer(kind)
    size, bias = (rest or [""])[0], rest[1:]
    if not size.isdecimal() or bias not in ([], ["nobias"]):
        raise _refusal(text, f"{part!r} is no linear layer; expected linear:N or linear:N:nobias")
    outputs = int(size[:_MAX_DIGITS])
    if len(size) > _MAX_DIGITS or not 1 <= outputs <= MAX_SIZE:
        raise _refusal(text, f"{part!r} is out of range; expected 1 to {MAX_SIZE} outputs")
    return HeadLayer(_LINEAR, outputs, not bias)


def _refusal(text: str, problem: str) -> UsageError:
    return UsageError(
        f"The head is {text!r}: {problem}.",
        remedy='For example: --head "dropout,linear:256,relu,linear:5"',
    )
