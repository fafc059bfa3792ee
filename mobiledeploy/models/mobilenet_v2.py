"""MobileNet V2. Sandler et al. 2018, arXiv 1801.04381, table 2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from mobiledeploy.models.blocks import (
    STANDARD_LAYERS,
    Activation,
    ConvNormActivation,
    Layers,
    has_residual,
    inverted_residual,
    make_divisible,
)
from mobiledeploy.models.head import build_head


class Row(NamedTuple):
    """One stage: expansion factor, output channels, number of blocks, stride of the first."""

    t: int
    c: int
    n: int
    s: int


# fmt: off
INVERTED_RESIDUAL_SETTING = tuple(Row(*row) for row in (
    # t    c  n  s       output at 224, width 1.0
    ( 1,  16, 1, 1),   # 112 x 112 x 16
    ( 6,  24, 2, 2),   # 56 x 56 x 24
    ( 6,  32, 3, 2),   # 28 x 28 x 32
    ( 6,  64, 4, 2),   # 14 x 14 x 64
    ( 6,  96, 3, 1),   # 14 x 14 x 96
    ( 6, 160, 3, 2),   # 7 x 7 x 160
    ( 6, 320, 1, 1),   # 7 x 7 x 320
))
# fmt: on
STEM = 32
HEAD = 1280


class InvertedResidual(nn.Module):
    """Expand, depthwise, project; plus the input where the shapes agree."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int,
        expansion: int,
        activation: Activation = nn.ReLU6,
        layers: Layers = STANDARD_LAYERS,
    ) -> None:
        super().__init__()
        *body, project = inverted_residual(
            in_channels,
            in_channels * expansion,
            out_channels,
            stride=stride,
            activation=activation,
            layers=layers,
        )
        self.residual = has_residual(in_channels, out_channels, stride)
        assert isinstance(project, nn.Sequential)
        self.conv = nn.Sequential(*body, *project)  # flat at the end: torchvision's keys

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, in, H, W) to (N, out, H / stride, W / stride)."""
        y: torch.Tensor = self.conv(x)
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """A convolution, inverted residuals with linear bottlenecks, a 1x1 head, a classifier.

    Keys are torchvision's.

    Args:
        rows: The table; `INVERTED_RESIDUAL_SETTING` is the paper's.
        width: Width multiplier. The head does not shrink below the paper's 1280 (section 6.1).
        round_nearest: Channel counts are multiples of this.
        stem_width: Channels of the first convolution; None scales the paper's 32.
        stem_stride: Stride of the first convolution, 2 or 1.
        head_width: Channels before the classifier; None is 1280, scaled where width > 1.
        head: Layers in place of the classifier (see `mobiledeploy.models.head`); None is it.
        num_classes: Outputs; 0 ends the network at the pooled features.
    """

    def __init__(
        self,
        rows: Sequence[Row] = INVERTED_RESIDUAL_SETTING,
        *,
        width: float = 1.0,
        round_nearest: int = 8,
        stem_width: int | None = None,
        stem_stride: int = 2,
        head_width: int | None = None,
        head: str | None = None,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.2,
        activation: Activation = nn.ReLU6,
        layers: Layers = STANDARD_LAYERS,
    ) -> None:
        super().__init__()

        def scaled(channels: int, by: float = width) -> int:
            return make_divisible(channels * by, round_nearest)

        channels = stem_width or scaled(STEM)
        features_width = head_width or scaled(HEAD, by=max(1.0, width))
        # (N, in, 224, 224) -> (N, 32, 112, 112)
        stem = ConvNormActivation(
            in_channels, channels, stride=stem_stride, activation=activation, layers=layers
        )
        features: list[nn.Module] = [stem]
        for t, c, n, s in rows:
            for i in range(n):
                block = InvertedResidual(
                    channels,
                    scaled(c),
                    stride=s if i == 0 else 1,
                    expansion=t,
                    activation=activation,
                    layers=layers,
                )
                features.append(block)
                channels = scaled(c)
        # (N, 320, 7, 7) -> (N, 1280, 7, 7)
        features.append(
            ConvNormActivation(
                channels, features_width, kernel=1, activation=activation, layers=layers
            )
        )
        self.features = nn.Sequential(*features)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        classifier: list[nn.Module] = []
        if num_classes:
            classifier = [nn.Dropout(dropout), nn.Linear(features_width, num_classes)]
        self.classifier = nn.Sequential(*classifier)
        if head is not None:
            self.classifier = build_head(head, features_width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (N, C, H, W) to logits (N, num_classes)."""
        x = torch.flatten(self.avgpool(self.features(x)), 1)  # (N, 1280)
        logits: torch.Tensor = self.classifier(x)
        return logits
