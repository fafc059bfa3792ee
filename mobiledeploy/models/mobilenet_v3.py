"""MobileNet V3, Large and Small. Howard et al. 2019, arXiv 1905.02244, tables 1 and 2."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import nn

from mobiledeploy.models.blocks import (
    STANDARD_LAYERS,
    Activation,
    ConvNormActivation,
    Layers,
    SEGate,
    SqueezeExcitation,
    has_residual,
    inverted_residual,
    make_divisible,
)
from mobiledeploy.models.head import build_head

WidthRule = Literal["torchvision", "slim"]


class Row(NamedTuple):
    """One bneck: kernel, expansion size, output channels, squeeze?, non-linearity, stride."""

    k: int
    exp: int
    out: int
    SE: bool
    NL: str
    s: int


# fmt: off
LARGE = tuple(Row(*row) for row in (
    # k  exp  out     SE    NL  s       output at 224, width 1.0
    (3,  16,  16, False, "RE", 1),   # 112 x 112 x 16
    (3,  64,  24, False, "RE", 2),   # 56 x 56 x 24
    (3,  72,  24, False, "RE", 1),
    (5,  72,  40, True,  "RE", 2),   # 28 x 28 x 40
    (5, 120,  40, True,  "RE", 1),
    (5, 120,  40, True,  "RE", 1),
    (3, 240,  80, False, "HS", 2),   # 14 x 14 x 80
    (3, 200,  80, False, "HS", 1),
    (3, 184,  80, False, "HS", 1),
    (3, 184,  80, False, "HS", 1),
    (3, 480, 112, True,  "HS", 1),   # 14 x 14 x 112
    (3, 672, 112, True,  "HS", 1),
    (5, 672, 160, True,  "HS", 2),   # 7 x 7 x 160
    (5, 960, 160, True,  "HS", 1),
    (5, 960, 160, True,  "HS", 1),
))
SMALL = tuple(Row(*row) for row in (
    # k  exp  out     SE    NL  s       output at 224, width 1.0
    (3,  16,  16, True,  "RE", 2),   # 56 x 56 x 16
    (3,  72,  24, False, "RE", 2),   # 28 x 28 x 24
    (3,  88,  24, False, "RE", 1),
    (5,  96,  40, True,  "HS", 2),   # 14 x 14 x 40
    (5, 240,  40, True,  "HS", 1),
    (5, 240,  40, True,  "HS", 1),
    (5, 120,  48, True,  "HS", 1),   # 14 x 14 x 48
    (5, 144,  48, True,  "HS", 1),
    (5, 288,  96, True,  "HS", 2),   # 7 x 7 x 96
    (5, 576,  96, True,  "HS", 1),
    (5, 576,  96, True,  "HS", 1),
))
# fmt: on
STEM = 16
# V3-Small's head has 1024 channels in every release; the paper's 2.9 M parameters need 1280.
HEAD = {"v3-large": 1280, "v3-small": 1024}
TAIL = 3  # blocks of the last stage, which `dilated` and `reduced_tail` change
LAST_EXPANSION = 6  # the last 1x1 convolution has 6 times the last block's channels
SE_REDUCTION = 4
ACTIVATIONS: dict[str, Activation] = {"RE": nn.ReLU, "HS": nn.Hardswish}


class Bneck(nn.Module):
    """Expand, depthwise, squeeze-and-excite, project; plus the input where the shapes agree."""

    def __init__(
        self,
        in_channels: int,
        expanded: int,
        row: Row,
        out_channels: int,
        *,
        dilation: int,
        se_gate: SEGate,
        layers: Layers,
    ) -> None:
        super().__init__()

        def squeeze(channels: int) -> SqueezeExcitation:
            squeezed = make_divisible(channels / SE_REDUCTION)
            return SqueezeExcitation(channels, squeezed, gate=se_gate, layers=layers)

        self.residual = has_residual(in_channels, out_channels, row.s)
        self.block = nn.Sequential(
            *inverted_residual(
                in_channels,
                expanded,
                out_channels,
                kernel=row.k,
                stride=row.s,
                dilation=dilation,
                squeeze=squeeze if row.SE else None,
                activation=ACTIVATIONS[row.NL],
                layers=layers,
            )
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, in, H, W) to (N, out, H / stride, W / stride)."""
        y: torch.Tensor = self.block(x)
        return y + x if self.residual else y


class MobileNetV3(nn.Module):
    """A convolution, bnecks, a 1x1 convolution, pooling, a hidden layer, a classifier.

    Keys are torchvision's.

    Args:
        rows: `LARGE`, `SMALL`, or a custom table.
        head_width: Channels of the hidden layer at width 1.
        hidden_width: Channels of the hidden layer; None scales `head_width` by the width rule.
        width: Width multiplier.
        width_rule: "torchvision" or "slim"; see `ArchitectureOptions`.
        stem_width: Channels of the first convolution; None scales the paper's 16.
        stem_stride: Stride of the first convolution, 2 or 1.
        dilated: Whether the last three blocks have dilation 2 instead of a stride.
        reduced_tail: Whether the last three blocks and the head have half the channels.
        se_gate: "hard-sigmoid" or "sigmoid"; see `SqueezeExcitation`.
        head: Layers in place of hidden layer and classifier (see `mobiledeploy.models.head`); None
            is these.
        num_classes: Outputs; 0 ends the network at the hidden layer's activations.
    """

    def __init__(
        self,
        rows: Sequence[Row] = LARGE,
        *,
        head_width: int = 1280,
        hidden_width: int | None = None,
        width: float = 1.0,
        width_rule: WidthRule = "torchvision",
        stem_width: int | None = None,
        stem_stride: int = 2,
        dilated: bool = False,
        reduced_tail: bool = False,
        se_gate: SEGate = "hard-sigmoid",
        head: str | None = None,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.2,
        layers: Layers = STANDARD_LAYERS,
    ) -> None:
        super().__init__()

        def scaled(channels: float) -> int:
            return make_divisible(channels * width)

        if reduced_tail:
            rows, head_width = _with_halved_tail(rows), head_width // 2
        unscaled, channels = STEM, stem_width or scaled(STEM)
        op = partial(ConvNormActivation, activation=nn.Hardswish, layers=layers)
        # (N, in, 224, 224) -> (N, 16, 112, 112)
        features: list[nn.Module] = [op(in_channels, channels, stride=stem_stride)]
        for i, row in enumerate(rows):
            expanded = scaled(row.exp)
            if width_rule == "slim":  # the expansion ratio times the rounded input width
                expanded = make_divisible(channels * row.exp / unscaled)
            block = Bneck(
                channels,
                expanded,
                row,
                scaled(row.out),
                dilation=2 if dilated and i >= len(rows) - TAIL else 1,
                se_gate=se_gate,
                layers=layers,
            )
            features.append(block)
            unscaled, channels = row.out, scaled(row.out)
        if width_rule == "slim":
            last = scaled(LAST_EXPANSION * unscaled)
            hidden = make_divisible(head_width * max(1.0, width))
        else:
            last, hidden = LAST_EXPANSION * channels, scaled(head_width)
        hidden = hidden_width or hidden
        # (N, 160, 7, 7) -> (N, 960, 7, 7)
        features.append(op(channels, last, kernel=1))
        self.features = nn.Sequential(*features)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        classifier: list[nn.Module] = [nn.Linear(last, hidden), nn.Hardswish()]
        if num_classes:
            classifier += [nn.Dropout(dropout), nn.Linear(hidden, num_classes)]
        self.classifier = nn.Sequential(*classifier)
        if head is not None:
            self.classifier = build_head(head, last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (N, C, H, W) to logits (N, num_classes)."""
        x = torch.flatten(self.avgpool(self.features(x)), 1)  # (N, 960)
        logits: torch.Tensor = self.classifier(x)  # (N, 1280) -> (N, num_classes)
        return logits


def _with_halved_tail(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Halve the channels of the last stage (section 6.4), except its first block's expansion."""
    body, (first, *rest) = rows[:-TAIL], rows[-TAIL:]
    halved = (row._replace(exp=row.exp // 2, out=row.out // 2) for row in rest)
    return (*body, first._replace(out=first.out // 2), *halved)
