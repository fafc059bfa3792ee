"""MobileNet V1. Howard et al. 2017, arXiv 1704.04861, table 1."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from mobiledeploy.models.blocks import (
    STANDARD_LAYERS,
    Activation,
    ConvNormActivation,
    DepthwiseSeparable,
    Layers,
)
from mobiledeploy.models.head import build_head


class Row(NamedTuple):
    """One depthwise separable convolution: pointwise output channels, depthwise stride."""

    c: int
    s: int


# fmt: off
ROWS = tuple(Row(*row) for row in (
    #  c  s       output at 224, width 1.0
    (  64, 1),  # 112 x 112 x 64
    ( 128, 2),  # 56 x 56 x 128
    ( 128, 1),
    ( 256, 2),  # 28 x 28 x 256
    ( 256, 1),
    ( 512, 2),  # 14 x 14 x 512
    ( 512, 1),
    ( 512, 1),
    ( 512, 1),
    ( 512, 1),
    ( 512, 1),
    (1024, 2),  # 7 x 7 x 1024
    (1024, 1),
))
# fmt: on
STEM = 32
MIN_CHANNELS = 8


class MobileNetV1(nn.Module):
    """A convolution, depthwise separable convolutions, average pooling, a linear classifier.

    Keys are `features.{i}...`, in Sequential order, and `classifier`.

    Args:
        rows: The table; `ROWS` is the paper's.
        width: Width multiplier: every channel count is int(width * c), at least 8 (TF-slim's rule).
        kernels_per_layer: Depthwise filters per input channel.
        stem_width: Channels of the first convolution; None scales the paper's 32.
        stem_stride: Stride of the first convolution, 2 or 1.
        head: Layers in place of the classifier (see `mobiledeploy.models.head`); None is it.
        num_classes: Outputs; 0 ends the network at the pooled features.
    """

    def __init__(
        self,
        rows: Sequence[Row] = ROWS,
        *,
        width: float = 1.0,
        kernels_per_layer: int = 1,
        stem_width: int | None = None,
        stem_stride: int = 2,
        head: str | None = None,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.2,
        activation: Activation = nn.ReLU6,
        layers: Layers = STANDARD_LAYERS,
    ) -> None:
        super().__init__()

        def scaled(channels: int) -> int:
            return max(MIN_CHANNELS, int(channels * width))

        block = partial(
            DepthwiseSeparable,
            kernels_per_layer=kernels_per_layer,
            activation=activation,
            layers=layers,
        )
        channels = stem_width or scaled(STEM)
        # (N, in, 224, 224) -> (N, 32, 112, 112)
        stem = ConvNormActivation(
            in_channels, channels, stride=stem_stride, activation=activation, layers=layers
        )
        features: list[nn.Module] = [stem]
        for c, s in rows:
            features.append(block(channels, scaled(c), stride=s))
            channels = scaled(c)
        self.features = nn.Sequential(*features)  # -> (N, 1024, 7, 7)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.classifier: nn.Module = nn.Identity()
        if head is not None:
            self.classifier = build_head(head, channels)
        elif num_classes:
            self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (N, C, H, W) to logits (N, num_classes)."""
        x = torch.flatten(self.avgpool(self.features(x)), 1)  # (N, 1024)
        logits: torch.Tensor = self.classifier(self.dropout(x))
        return logits
