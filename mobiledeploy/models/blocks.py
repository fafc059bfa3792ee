"""The few blocks that all MobileNets are made of.

Modules are nested and named so that their state-dict keys are torchvision's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from mobiledeploy.errors import UsageError

Activation = Callable[[], nn.Module]
SEGate = Literal["hard-sigmoid", "sigmoid"]


def make_divisible(value: float, divisor: int = 8) -> int:
    """Round a channel count to a multiple of `divisor`, never below 90% of `value`.

    Source: the rule of TF-slim's MobileNets, which torchvision and timm share.
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


class SamePaddingConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow pads: the odd pixel goes to the right and the bottom.

    At stride 2 on an even side that is one pixel more at the end than at the beginning, which no
    `padding=` expresses: it becomes an explicit pad in front of the convolution.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, C, H, W) to (N, K, ceil(H / stride), ceil(W / stride))."""
        top, bottom = self._pads(x.shape[2], axis=0)
        left, right = self._pads(x.shape[3], axis=1)
        padding: tuple[int, int] = (top, left)
        if top != bottom or left != right:
            x, padding = F.pad(x, (left, right, top, bottom)), (0, 0)
        return F.conv2d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)

    def _pads(self, size: int, axis: int) -> tuple[int, int]:
        """Return the padding before and after along one axis of `size` pixels."""
        stride, reach = self.stride[axis], self.dilation[axis] * (self.kernel_size[axis] - 1)
        steps = -(-size // stride)
        total = max((steps - 1) * stride + reach + 1 - size, 0)
        return total // 2, total - total // 2


@dataclass(frozen=True, slots=True)
class Layers:
    """What convolutions and norms are made by, throughout one network.

    Attributes:
        conv: `nn.Conv2d`, or `SamePaddingConv2d` for weights ported from TensorFlow.
        norm: Makes the norm layer for a number of channels.
    """

    conv: type[nn.Conv2d] = nn.Conv2d
    norm: Callable[[int], nn.Module] = nn.BatchNorm2d


STANDARD_LAYERS = Layers()


class ConvNormActivation(nn.Sequential):
    """Convolution without bias, norm, and (unless None) an activation."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int = 3,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        activation: Activation | None,
        layers: Layers,
    ) -> None:
        conv = layers.conv(
            in_channels,
            out_channels,
            kernel,
            stride,
            padding=(kernel - 1) // 2 * dilation,
            dilation=dilation,
            groups=groups,
            bias=False,
        )
        tail = [] if activation is None else [activation()]
        super().__init__(conv, layers.norm(out_channels), *tail)


class DepthwiseSeparable(nn.Sequential):
    """Depthwise 3x3, then pointwise 1x1, each with norm and activation.

    `kernels_per_layer` depthwise filters see each input channel (Keras calls it depth multiplier).
    Source: MobileNets, arXiv 1704.04861, section 3.1 and figure 3.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int,
        kernels_per_layer: int,
        activation: Activation,
        layers: Layers,
    ) -> None:
        between = in_channels * kernels_per_layer
        op = partial(ConvNormActivation, activation=activation, layers=layers)
        super().__init__(
            op(in_channels, between, stride=_checked(stride), groups=in_channels),
            op(between, out_channels, kernel=1),
        )


class SqueezeExcitation(nn.Module):
    """Scales each channel by a gate computed from all channels' means.

    Published: 1x1 convolutions with biases and a hard-sigmoid gate (MobileNetV3, arXiv 1905.02244,
    section 5.3). The variant with a sigmoid gate has BN behind both convolutions instead of biases.
    """

    def __init__(self, channels: int, squeezed: int, *, gate: SEGate, layers: Layers) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1: nn.Module
        self.fc2: nn.Module
        self.scale_activation: nn.Module
        if gate == "hard-sigmoid":
            self.fc1 = nn.Conv2d(channels, squeezed, 1)
            self.fc2 = nn.Conv2d(squeezed, channels, 1)
            self.scale_activation = nn.Hardsigmoid()
        else:
            op = partial(ConvNormActivation, kernel=1, activation=None, layers=layers)
            self.fc1 = op(channels, squeezed)
            self.fc2 = op(squeezed, channels)
            self.scale_activation = nn.Sigmoid()
        self.activation = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, C, H, W) to the same shape."""
        squeezed = self.activation(self.fc1(self.avgpool(x)))  # (N, squeezed, 1, 1)
        gate: torch.Tensor = self.scale_activation(self.fc2(squeezed))  # (N, C, 1, 1)
        return gate * x


def inverted_residual(
    in_channels: int,
    expanded: int,
    out_channels: int,
    *,
    kernel: int = 3,
    stride: int = 1,
    dilation: int = 1,
    squeeze: Callable[[int], nn.Module] | None = None,
    activation: Activation,
    layers: Layers,
) -> list[nn.Module]:
    """Return an inverted residual's layers: expand 1x1, depthwise, squeeze, project 1x1 (linear).

    The expansion is left out where it would not expand. A dilated block does not stride.
    Source: MobileNetV2, arXiv 1801.04381, table 1; MobileNetV3, figure 4.

    Raises:
        UsageError: the stride is neither 1 nor 2.
    """
    op = partial(ConvNormActivation, layers=layers)
    depthwise = op(
        expanded,
        expanded,
        kernel=kernel,
        stride=1 if dilation > 1 else _checked(stride),
        dilation=dilation,
        groups=expanded,
        activation=activation,
    )
    expand = op(in_channels, expanded, kernel=1, activation=activation)
    project = op(expanded, out_channels, kernel=1, activation=None)
    return [
        *([expand] if expanded != in_channels else []),
        depthwise,
        *([squeeze(expanded)] if squeeze else []),
        project,
    ]


def has_residual(in_channels: int, out_channels: int, stride: int) -> bool:
    """Return whether a block adds its input to its output: the shapes have to agree."""
    return stride == 1 and in_channels == out_channels


def _checked(stride: int) -> int:
    """Return `stride` if a MobileNet block can have it."""
    if stride not in (1, 2):
        raise UsageError(
            f"A MobileNet block has stride 1 or 2, not {stride!r}.",
            remedy="Correct column s of the row table.",
        )
    return stride
