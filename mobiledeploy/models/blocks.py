"""Building blocks of all MobileNets.

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

    Source: TF-slim's MobileNets; torchvision and timm use the same rule.
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


class SamePaddingConv2d(nn.Conv2d):
    """A convolution with TensorFlow's "same" padding: an odd pixel is added right and bottom.

    At stride 2 and an even side this padding is asymmetric, which `padding=` cannot express. An
    explicit pad precedes the convolution then.
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
    """Constructors of the convolutions and norms of one network.

    Attributes:
        conv: `nn.Conv2d`, or `SamePaddingConv2d` for weights ported from TensorFlow.
        norm: Constructor of the norm layer, called with the number of channels; None for a network
            without norms, whose convolutions have biases.
    """

    conv: type[nn.Conv2d] = nn.Conv2d
    norm: Callable[[int], nn.Module] | None = nn.BatchNorm2d


STANDARD_LAYERS = Layers()


class ConvNormActivation(nn.Sequential):
    """Convolution, norm or else a bias, and an activation unless it is None."""

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
            bias=layers.norm is None,
        )
        norm = [] if layers.norm is None else [layers.norm(out_channels)]
        tail = [] if activation is None else [activation()]
        super().__init__(conv, *norm, *tail)


class DepthwiseSeparable(nn.Sequential):
    """Depthwise 3x3, then pointwise 1x1, each with norm and activation.

    Each input channel has `kernels_per_layer` depthwise filters (Keras: `depth_multiplier`).
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
    """Scale each channel by a gate that is computed from the means of all channels.

    The published block has 1x1 convolutions with biases and a hard-sigmoid gate (MobileNetV3, arXiv
    1905.02244, section 5.3). The variant with a sigmoid gate has BatchNorm after both convolutions
    instead of biases.
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

    There is no expansion if the expanded width equals the input width. A dilated block has stride
    1. Source: MobileNetV2, arXiv 1801.04381, table 1; MobileNetV3, figure 4.

    Raises:
        UsageError: The stride is neither 1 nor 2.
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
    """Return whether a block adds its input to its output: their shapes have to agree."""
    return stride == 1 and in_channels == out_channels


def _checked(stride: int) -> int:
    """Return `stride` if it is valid for a MobileNet block."""
    if stride not in (1, 2):
        raise UsageError(
            f"The stride of a block is {stride!r}; expected 1 or 2.",
            remedy="Correct column s of the row table.",
        )
    return stride
