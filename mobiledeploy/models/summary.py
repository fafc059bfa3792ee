"""Count parameters and multiply-accumulates of a network, layer by layer.

Hooks on a network without storage count them, so any size takes milliseconds. MACs are the
multiplications of convolutions and linear layers, as in the papers; biases, norms and gates are not
counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from mobiledeploy.models.build import create_on_meta
from mobiledeploy.models.initialize import BatchNorm
from mobiledeploy.models.published_sizes import ModelTotals
from mobiledeploy.models.spec import ModelSpec

_BIAS_BYTES = 4  # int32 beside int8 weights
_SCALE_BYTES = 4  # float32, one for each output channel


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSummary:
    """A layer with parameters.

    Attributes:
        name: Qualified name, as in the state dict.
        kind: Description: "conv 1x1", "depthwise 3x3 /2", "batch norm", "linear".
        output_shape: Shape of the output without the batch dimension.
        params: Number of trainable parameters.
        macs: Multiply-accumulates for one image.
        weights: Number of parameters that are stored as int8; the others are biases and norms.
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
    """A network's layers in execution order, and their sums."""

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
        """Return the size in bytes of float weights and biases after folding BatchNorm."""
        return sum(4 * (layer.weights + layer.channels) for layer in self.layers if layer.weights)

    @property
    def int8_bytes(self) -> int:
        """Return the size in bytes of int8 weights, their scales and int32 biases."""
        per_channel = _BIAS_BYTES + _SCALE_BYTES
        return sum(
            layer.weights + per_channel * layer.channels for layer in self.layers if layer.weights
        )

    @property
    def totals(self) -> ModelTotals:
        """Return the sums without the layers."""
        return ModelTotals(
            spec=self.spec,
            params=self.params,
            macs=self.macs,
            fp32_bytes=self.fp32_bytes,
            int8_bytes=self.int8_bytes,
        )

    def macs_share(self, layer: LayerSummary) -> float:
        """Return a layer's share of the network's multiply-accumulates, 0 to 1."""
        return layer.macs / self.macs


def summarize(spec: ModelSpec) -> ModelSummary:
    """Count the parameters and multiply-accumulates of the network of `spec`.

    Raises:
        UsageError: The specification is invalid or contradictory.
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
    """Count one layer whose output has `shape`, without the batch dimension."""
    params = sum(parameter.numel() for parameter in layer.parameters())
    weights, macs = 0, 0
    if isinstance(layer, nn.Conv2d):
        weights = layer.weight.numel()
        macs = weights * shape[1] * shape[2]  # each weight is used once per output pixel
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
    """Describe a layer: operation, kernel, and stride and dilation if they are not 1."""
    if isinstance(layer, nn.Linear):
        return "linear"
    if not isinstance(layer, nn.Conv2d):
        return "batch norm"
    name = "depthwise" if layer.groups == layer.in_channels > 1 else "conv"
    stride = f" /{layer.stride[0]}" if layer.stride[0] > 1 else ""
    dilation = f" dilated {layer.dilation[0]}" if layer.dilation[0] > 1 else ""
    return f"{name} {layer.kernel_size[0]}x{layer.kernel_size[1]}{stride}{dilation}"
