"""What a network costs: parameters and multiply-accumulates, layer by layer.

Counted by hooks on a network without storage, so any size takes milliseconds. MACs are the
multiplications of convolutions and linear layers, as in the papers: no bias, no norm, no gate.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from mobiledeploy.models.build import create_on_meta
from mobiledeploy.models.initialize import BatchNorm
from mobiledeploy.models.spec import ArchitectureOptions, Family, ModelSpec

_BIAS_BYTES = 4  # int32 beside int8 weights
_SCALE_BYTES = 4  # float32, one for each output channel


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSummary:
    """One layer that has parameters.

    Attributes:
        name: Qualified, as in the state dict.
        kind: For people: "conv 1x1", "depthwise 3x3 /2", "batch norm", "linear".
        output_shape: Without the batch.
        macs: Multiply-accumulates for one image.
        weights: Parameters that are stored as int8; the others are biases and norms.
        channels: Output channels.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    params: int
    macs: int
    weights: int
    channels: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSummary:
    """A network's layers in the order they run, and their sums."""

    spec: ModelSpec
    layers: tuple[LayerSummary, ...]

    @property
    def params(self) -> int:
        """Return the number of trainable parameters."""
        return sum(layer.params for layer in self.layers)

    @property
    def macs(self) -> int:
        """Return the multiply-accumulates for one image."""
        return sum(layer.macs for layer in self.layers)

    @property
    def fp32_bytes(self) -> int:
        """Return what float weights and biases take, BatchNorm folded; files add a little."""
        return sum(4 * (layer.weights + layer.channels) for layer in self.layers if layer.weights)

    @property
    def int8_bytes(self) -> int:
        """Return what int8 weights, their scales and int32 biases take; files add a little."""
        per_channel = _BIAS_BYTES + _SCALE_BYTES
        return sum(
            layer.weights + per_channel * layer.channels for layer in self.layers if layer.weights
        )

    def macs_share(self, layer: LayerSummary) -> float:
        """Return a layer's share of all multiply-accumulates, 0 to 1."""
        return layer.macs / self.macs


def summarize(spec: ModelSpec) -> ModelSummary:
    """Count the parameters and multiply-accumulates of the network of `spec`.

    Raises:
        UsageError: the specification is invalid or contradicts itself.
    """
    module = create_on_meta(spec)
    layers: list[LayerSummary] = []

    def record(name: str, layer: nn.Module, _: object, output: torch.Tensor) -> None:
        layers.append(_summarize_layer(name, layer, tuple(output.shape[1:])))

    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear | BatchNorm):
            layer.register_forward_hook(partial(record, name))
    module(torch.empty(spec.input_shape, device="meta"))
    return ModelSummary(spec=spec, layers=tuple(layers))


def _summarize_layer(name: str, layer: nn.Module, shape: tuple[int, ...]) -> LayerSummary:
    """Count one layer whose output has `shape` (without the batch)."""
    params = sum(parameter.numel() for parameter in layer.parameters())
    weights, macs = 0, 0
    if isinstance(layer, nn.Conv2d):
        weights = layer.weight.numel()
        macs = weights * shape[1] * shape[2]  # every weight is used once for each output pixel
    elif isinstance(layer, nn.Linear):
        weights = macs = layer.weight.numel()
    return LayerSummary(
        name=name,
        kind=_kind(layer),
        output_shape=shape,
        params=params,
        macs=macs,
        weights=weights,
        channels=shape[0],
    )


def _kind(layer: nn.Module) -> str:
    """Name a layer's operation, its kernel, and its stride and dilation where they are not 1."""
    if isinstance(layer, nn.Linear):
        return "linear"
    if not isinstance(layer, nn.Conv2d):
        return "batch norm"
    name = "depthwise" if layer.groups == layer.in_channels > 1 else "conv"
    stride = f" /{layer.stride[0]}" if layer.stride[0] > 1 else ""
    dilation = f" dilated {layer.dilation[0]}" if layer.dilation[0] > 1 else ""
    return f"{name} {layer.kernel_size[0]}x{layer.kernel_size[1]}{stride}{dilation}"


_PUBLISHED_WIDTHS: dict[Family, tuple[float, ...]] = {
    "v1": (1.0, 0.75, 0.5, 0.25),
    "v2": (1.4, 1.3, 1.0, 0.75, 0.5, 0.35),
    "v3-large": (1.0, 0.75),
    "v3-small": (1.0, 0.75),
}
_SLIM = ArchitectureOptions(width_rule="slim")
_HEAD_1280 = ArchitectureOptions(head_width=1280)
_SLIM_HEAD_1280 = ArchitectureOptions(width_rule="slim", head_width=1280)


def published() -> tuple[ModelSpec, ...]:
    """Return every network whose size a paper or a release gives, at 224 pixels.

    Of V3 both readings: as torchvision builds and trains it, and as the paper's tables count it.
    """
    plain = (
        ModelSpec(family=family, width=width)
        for family, widths in _PUBLISHED_WIDTHS.items()
        for width in widths
    )
    return (
        *plain,
        ModelSpec(family="v3-large", width=0.75, architecture=_SLIM),
        ModelSpec(family="v3-small", width=1.0, architecture=_HEAD_1280),
        ModelSpec(family="v3-small", width=0.75, architecture=_SLIM_HEAD_1280),
    )
