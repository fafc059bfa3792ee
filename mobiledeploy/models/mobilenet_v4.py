"""MobileNet V4, the convolutional networks. Qin et al. 2024, arXiv 2404.10518, tables 11 to 13.

The universal inverted bottleneck (UIB) has an optional depthwise convolution before the expansion
(k1) and another one behind it (k2). The paper names the four combinations ExtraDW (both), IB (k2),
ConvNext (k1) and FFN (none).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from mobiledeploy.errors import UsageError
from mobiledeploy.models.blocks import STANDARD_LAYERS, Layers, has_residual, make_divisible
from mobiledeploy.models.head import build_head


class Row(NamedTuple):
    """One block: type, kernels, expanded and output channels, stride.

    A "Conv" has the kernel k1. A "FusedIB" expands by a dense convolution with kernel k1. A "UIB"
    has depthwise convolutions with kernels k1 and k2; 0 leaves one out.
    """

    block: str
    k1: int
    k2: int
    exp: int
    out: int
    s: int


# fmt: off
CONV_SMALL = tuple(Row(*row) for row in (
    # block     k1 k2  exp  out  s       output at 224, width 1.0
    ("Conv",    3, 0,    0,  32, 2),   # 56 x 56 x 32
    ("Conv",    1, 0,    0,  32, 1),
    ("Conv",    3, 0,    0,  96, 2),   # 28 x 28 x 96
    ("Conv",    1, 0,    0,  64, 1),   # 28 x 28 x 64
    ("UIB",     5, 5,  192,  96, 2),   # 14 x 14 x 96
    ("UIB",     0, 3,  192,  96, 1),
    ("UIB",     0, 3,  192,  96, 1),
    ("UIB",     0, 3,  192,  96, 1),
    ("UIB",     0, 3,  192,  96, 1),
    ("UIB",     3, 0,  384,  96, 1),
    ("UIB",     3, 3,  576, 128, 2),   # 7 x 7 x 128
    ("UIB",     5, 5,  512, 128, 1),
    ("UIB",     0, 5,  512, 128, 1),
    ("UIB",     0, 5,  384, 128, 1),
    ("UIB",     0, 3,  512, 128, 1),
    ("UIB",     0, 3,  512, 128, 1),
))
CONV_MEDIUM = tuple(Row(*row) for row in (
    # block     k1 k2  exp  out  s       output at 224, width 1.0
    ("FusedIB", 3, 0,  128,  48, 2),   # 56 x 56 x 48
    ("UIB",     3, 5,  192,  80, 2),   # 28 x 28 x 80
    ("UIB",     3, 3,  160,  80, 1),
    ("UIB",     3, 5,  480, 160, 2),   # 14 x 14 x 160
    ("UIB",     3, 3,  640, 160, 1),
    ("UIB",     3, 3,  640, 160, 1),
    ("UIB",     3, 5,  640, 160, 1),
    ("UIB",     3, 3,  640, 160, 1),
    ("UIB",     3, 0,  640, 160, 1),
    ("UIB",     0, 0,  320, 160, 1),
    ("UIB",     3, 0,  640, 160, 1),
    ("UIB",     5, 5,  960, 256, 2),   # 7 x 7 x 256
    ("UIB",     5, 5, 1024, 256, 1),
    ("UIB",     3, 5, 1024, 256, 1),
    ("UIB",     3, 5, 1024, 256, 1),
    ("UIB",     0, 0, 1024, 256, 1),
    ("UIB",     3, 0, 1024, 256, 1),
    ("UIB",     3, 5,  512, 256, 1),
    ("UIB",     5, 5, 1024, 256, 1),
    ("UIB",     0, 0, 1024, 256, 1),
    ("UIB",     0, 0, 1024, 256, 1),
    ("UIB",     5, 0,  512, 256, 1),
))
CONV_LARGE = tuple(Row(*row) for row in (
    # block     k1 k2  exp  out  s       output at 224, width 1.0
    ("FusedIB", 3, 0,   96,  48, 2),   # 56 x 56 x 48
    ("UIB",     3, 5,  192,  96, 2),   # 28 x 28 x 96
    ("UIB",     3, 3,  384,  96, 1),
    ("UIB",     3, 5,  384, 192, 2),   # 14 x 14 x 192
    ("UIB",     3, 3,  768, 192, 1),
    ("UIB",     3, 3,  768, 192, 1),
    ("UIB",     3, 3,  768, 192, 1),
    ("UIB",     3, 5,  768, 192, 1),
    ("UIB",     5, 3,  768, 192, 1),
    ("UIB",     5, 3,  768, 192, 1),
    ("UIB",     5, 3,  768, 192, 1),
    ("UIB",     5, 3,  768, 192, 1),
    ("UIB",     5, 3,  768, 192, 1),
    ("UIB",     3, 0,  768, 192, 1),
    ("UIB",     5, 5,  768, 512, 2),   # 7 x 7 x 512
    ("UIB",     5, 5, 2048, 512, 1),
    ("UIB",     5, 5, 2048, 512, 1),
    ("UIB",     5, 5, 2048, 512, 1),
    ("UIB",     5, 0, 2048, 512, 1),
    ("UIB",     5, 3, 2048, 512, 1),
    ("UIB",     5, 0, 2048, 512, 1),
    ("UIB",     5, 0, 2048, 512, 1),
    ("UIB",     5, 3, 2048, 512, 1),
    ("UIB",     5, 5, 2048, 512, 1),
    ("UIB",     5, 0, 2048, 512, 1),
    ("UIB",     5, 0, 2048, 512, 1),
    ("UIB",     5, 0, 2048, 512, 1),
))
# fmt: on
TABLES = {"v4-conv-small": CONV_SMALL, "v4-conv-medium": CONV_MEDIUM, "v4-conv-large": CONV_LARGE}
STEM = {"v4-conv-small": 32, "v4-conv-medium": 32, "v4-conv-large": 24}
LAST = 960  # channels of the 1x1 convolution in front of the pooling
HEAD = 1280
_NO_EXPANSION = "Conv"


def _conv(
    in_channels: int,
    out_channels: int,
    *,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    active: bool = True,
    names: tuple[str, str, str] = ("conv", "bn", "act"),
    layers: Layers,
) -> OrderedDict[str, nn.Module]:
    """Return a convolution without bias, its norm, and a ReLU unless it is linear, by name."""
    conv = layers.conv(
        in_channels,
        out_channels,
        kernel,
        stride,
        padding=(kernel - 1) // 2,
        groups=groups,
        bias=False,
    )
    assert layers.norm is not None, "`norm: none` is an option of V1 and V2"
    found = OrderedDict[str, nn.Module](zip(names, (conv, layers.norm(out_channels)), strict=False))
    if active:
        found[names[2]] = nn.ReLU()
    return found


class UniversalInvertedBottleneck(nn.Module):
    """Optional depthwise, expand 1x1, optional depthwise, project 1x1; plus the input if it fits.

    The first depthwise convolution and the projection are linear. The stride is that of the second
    depthwise convolution, or of the first if there is no second. Source: section 3, figure 4.

    Raises:
        UsageError: The block has a stride but no depthwise convolution.
    """

    def __init__(
        self, in_channels: int, expanded: int, out_channels: int, row: Row, *, layers: Layers
    ) -> None:
        super().__init__()
        if row.s > 1 and not (row.k1 or row.k2):
            raise UsageError(
                f"A UIB without depthwise convolutions has stride {row.s}; expected 1.",
                remedy="Set k1 or k2 in the row table, or s to 1.",
            )

        def depthwise(channels: int, kernel: int, stride: int, *, active: bool) -> nn.Module:
            if kernel == 0:
                return nn.Identity()
            return nn.Sequential(
                _conv(
                    channels,
                    channels,
                    kernel=kernel,
                    stride=stride,
                    groups=channels,
                    active=active,
                    layers=layers,
                )
            )

        before_stride, between_stride = (1, row.s) if row.k2 else (row.s, 1)
        self.residual = has_residual(in_channels, out_channels, row.s)
        self.dw_start = depthwise(in_channels, row.k1, before_stride, active=False)
        self.pw_exp = nn.Sequential(_conv(in_channels, expanded, layers=layers))
        self.dw_mid = depthwise(expanded, row.k2, between_stride, active=True)
        self.pw_proj = nn.Sequential(_conv(expanded, out_channels, active=False, layers=layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, in, H, W) to (N, out, H / stride, W / stride)."""
        y: torch.Tensor = self.pw_proj(self.dw_mid(self.pw_exp(self.dw_start(x))))
        return y + x if self.residual else y


class FusedInvertedBottleneck(nn.Sequential):
    """Expand by a dense convolution, project 1x1; plus the input where the shapes agree."""

    def __init__(
        self, in_channels: int, expanded: int, out_channels: int, row: Row, *, layers: Layers
    ) -> None:
        expand = _conv(
            in_channels,
            expanded,
            kernel=row.k1,
            stride=row.s,
            names=("conv_exp", "bn1", "act"),
            layers=layers,
        )
        project = _conv(
            expanded, out_channels, active=False, names=("conv_pwl", "bn2", ""), layers=layers
        )
        super().__init__(expand | project)
        self.residual = has_residual(in_channels, out_channels, row.s)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, in, H, W) to (N, out, H / stride, W / stride)."""
        y: torch.Tensor = nn.Sequential.forward(self, x)  # type: ignore[no-untyped-call]
        return y + x if self.residual else y


class MobileNetV4(nn.Module):
    """A convolution, stages of blocks, a 1x1 convolution, pooling, a hidden layer, a classifier.

    Keys are timm's.

    Args:
        rows: A table of this module, or a custom one. A row of stride 2 begins a stage.
        width: Width multiplier. As in timm, it does not narrow the stem, and leaves the hidden
            layer as it is.
        stem: Channels of the first convolution at width 1.
        stem_width: Channels of the first convolution; None scales `stem`.
        stem_stride: Stride of the first convolution, 2 or 1.
        head_width: Channels of the hidden layer; None is the paper's 1280.
        head: Layers in place of the classifier (see `mobiledeploy.models.head`); None is it.
        num_classes: Outputs; 0 ends the network at the hidden layer's activations.

    Raises:
        UsageError: A row cannot be built.
    """

    def __init__(
        self,
        rows: Sequence[Row] = CONV_SMALL,
        *,
        width: float = 1.0,
        stem: int = 32,
        stem_width: int | None = None,
        stem_stride: int = 2,
        head_width: int | None = None,
        head: str | None = None,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.2,
        layers: Layers = STANDARD_LAYERS,
    ) -> None:
        super().__init__()

        def scaled(channels: int) -> int:
            return make_divisible(channels * width)

        unscaled, channels = stem, stem_width or (scaled(stem) if width > 1 else stem)
        # (N, in, 224, 224) -> (N, 32, 112, 112)
        first = _conv(in_channels, channels, kernel=3, stride=stem_stride, layers=layers)
        self.conv_stem, self.bn1, self.act1 = first.values()
        stages: list[list[nn.Module]] = []
        for row in rows:
            if row.s == 2 or not stages:
                stages.append([])
            out = scaled(row.out)
            # the expansion ratio times the scaled input width
            expanded = make_divisible(channels * row.exp / unscaled)
            stages[-1].append(_block(channels, expanded, out, row, layers=layers))
            unscaled, channels = row.out, out
        # (N, 128, 7, 7) -> (N, 960, 7, 7)
        last = Row(_NO_EXPANSION, k1=1, k2=0, exp=0, out=LAST, s=1)
        stages.append([_block(channels, 0, scaled(LAST), last, layers=layers)])
        self.blocks = nn.Sequential(*(nn.Sequential(*stage) for stage in stages))
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        hidden = head_width or HEAD
        projection = _conv(scaled(LAST), hidden, layers=layers)
        self.conv_head, self.norm_head, self.act2 = projection.values()
        self.dropout = nn.Dropout(dropout)
        self.classifier: nn.Module = nn.Identity()
        if head is not None:
            self.classifier = build_head(head, hidden)
        elif num_classes:
            self.classifier = nn.Linear(hidden, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (N, C, H, W) to logits (N, num_classes)."""
        x = self.blocks(self.act1(self.bn1(self.conv_stem(x))))  # (N, 960, 7, 7)
        x = self.act2(self.norm_head(self.conv_head(self.global_pool(x))))  # (N, 1280, 1, 1)
        logits: torch.Tensor = self.classifier(self.dropout(torch.flatten(x, 1)))
        return logits


def _block(
    in_channels: int, expanded: int, out_channels: int, row: Row, *, layers: Layers
) -> nn.Module:
    """Build the block of a row."""
    match row.block:
        case "UIB":
            return UniversalInvertedBottleneck(
                in_channels, expanded, out_channels, row, layers=layers
            )
        case "FusedIB":
            return FusedInvertedBottleneck(in_channels, expanded, out_channels, row, layers=layers)
        case _:
            conv = _conv(
                in_channels,
                out_channels,
                kernel=row.k1,
                stride=row.s,
                names=("conv", "bn1", "act"),
                layers=layers,
            )
            return nn.Sequential(conv)
