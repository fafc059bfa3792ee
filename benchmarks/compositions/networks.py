"""Eight networks that people build around MobileNets, as code for `mobiledeploy export`.

    mobiledeploy export benchmarks/compositions/networks.py:two_heads --weights random --int8

Every function returns an `nn.Module`. With `short=True` it has few blocks and a quarter of the
channels, for tests. Detection and segmentation follow torchvision's SSDLite, LR-ASPP and DeepLabV3.
"""

# ruff: noqa: ANN001, ANN003, ANN201, ANN202, ANN204, ANN205, D102 - written as users write

import torch
import torch.nn.functional as F
from torch import nn

from mobiledeploy.models.mobilenet_v2 import INVERTED_RESIDUAL_SETTING, MobileNetV2
from mobiledeploy.models.mobilenet_v3 import LARGE, SMALL, MobileNetV3, Row

COCO_CLASSES = 91
VOC_CLASSES = 21
_SHORT_V2 = tuple(
    type(INVERTED_RESIDUAL_SETTING[0])(*row)
    for row in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 96, 1, 2), (6, 160, 2, 2))
)


def v2(*, short, width=1.0):
    """Return the features of MobileNetV2 and their number of channels."""
    rows = _SHORT_V2 if short else INVERTED_RESIDUAL_SETTING
    head = 320 if short else None
    features = MobileNetV2(rows, width=width * (0.5 if short else 1), head_width=head).features
    return features, features[-1][0].out_channels


def v3_large(*, short, **options):
    """Return the features of MobileNetV3-Large."""
    return MobileNetV3(
        LARGE[::3] if short else LARGE, width=0.25 if short else 1, **options
    ).features


def conv_norm(in_channels, out_channels, kernel=1, *, activation=nn.ReLU, **options):
    """Return a convolution, BatchNorm and an activation."""
    padding = (kernel - 1) // 2 * options.get("dilation", 1)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, padding=padding, bias=False, **options),
        nn.BatchNorm2d(out_channels),
        activation(),
    )


class TutorialBlock(nn.Module):
    """An inverted residual as tutorials write it.

    Every stride-1 block has a shortcut, with a 1x1 projection where the channels differ. The
    activation stands behind the addition; squeeze-and-excitation has BatchNorm and a sigmoid.
    """

    def __init__(self, in_channels, row):
        super().__init__()
        self.row = row
        activation = nn.ReLU if row.NL == "RE" else nn.Hardswish
        self.expand = conv_norm(in_channels, row.exp, activation=activation)
        self.depthwise = conv_norm(
            row.exp, row.exp, row.k, activation=activation, stride=row.s, groups=row.exp
        )
        self.project = nn.Sequential(
            nn.Conv2d(row.exp, row.out, 1, bias=False), nn.BatchNorm2d(row.out)
        )
        squeezed = max(row.out // 4, 4)
        self.squeeze = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(row.out, squeezed, 1, bias=False),
            nn.BatchNorm2d(squeezed),
            nn.ReLU(inplace=True),
            nn.Conv2d(squeezed, row.out, 1, bias=False),
            nn.BatchNorm2d(row.out),
            nn.Sigmoid(),
        )
        self.shortcut = nn.Sequential()
        if row.s == 1 and in_channels != row.out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, row.out, 1, bias=False), nn.BatchNorm2d(row.out)
            )
        self.activation = activation()

    def forward(self, x):
        y = self.project(self.depthwise(self.expand(x)))
        if self.row.SE:
            y = y * self.squeeze(y)
        return self.activation(y + self.shortcut(x) if self.row.s == 1 else y)


class TutorialV3(nn.Module):
    """MobileNetV3-Large of common tutorials, with a convolutional classifier and a softmax."""

    def __init__(self, *, short, classes):
        super().__init__()
        rows = LARGE[::3] if short else LARGE
        if short:
            rows = [Row(row.k, row.exp // 4, row.out // 4, *row[3:]) for row in rows]
        self.stem = conv_norm(3, 16, 3, activation=nn.Hardswish, stride=2)
        blocks, channels = [], 16
        for row in rows:
            blocks.append(TutorialBlock(channels, row))
            channels = row.out
        self.blocks = nn.Sequential(*blocks)
        last = 6 * channels
        self.last = conv_norm(channels, last, activation=nn.Hardswish)
        hidden = 64 if short else 1280
        self.classifier = nn.Sequential(
            nn.Conv2d(last, hidden, 1),
            nn.Hardswish(),
            nn.Dropout(0.2),
            nn.Conv2d(hidden, classes, 1),
        )

    def forward(self, x):
        x = self.last(self.blocks(self.stem(x)))
        x = self.classifier(F.avg_pool2d(x, x.shape[-2:]))
        return F.softmax(x.view(x.size(0), -1), dim=1)


def tutorial_v3(short=False, classes=10):
    """Return the V3-Large of common tutorials."""
    return TutorialV3(short=short, classes=classes)


def mlp_head(short=False, classes=5):
    """Return V2 with an MLP head."""
    features, channels = v2(short=short)
    return nn.Sequential(
        features,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, 256),
        nn.BatchNorm1d(256),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(256, classes),
    )


class TwoHeads(nn.Module):
    """An age and a gender behind one MobileNet."""

    def __init__(self, *, short):
        super().__init__()
        self.features, channels = v2(short=short)
        self.age = nn.Sequential(nn.Linear(channels, 64), nn.ReLU(), nn.Linear(64, 1))
        self.gender = nn.Linear(channels, 2)

    def forward(self, x):
        x = self.features(x).mean([2, 3])
        return {"age": self.age(x), "gender": self.gender(x)}


def two_heads(short=False):
    """Return V2 with two heads."""
    return TwoHeads(short=short)


def landmarks(short=False, points=68):
    """Return V3-Small with x and y of each landmark."""
    rows, width = (SMALL[::3], 0.25) if short else (SMALL, 1)
    network = MobileNetV3(rows, width=width, head_width=1024)
    network.classifier[-1] = nn.Linear(network.classifier[-1].in_features, 2 * points)
    return network


class Embedding(nn.Sequential):
    """Layers whose result is scaled to length 1."""

    def forward(self, x):
        return F.normalize(super().forward(x))


def embedding(short=False, size=128):
    """Return V2 at width 0.5 as an embedding of length 1."""
    features, channels = v2(short=short, width=0.5)
    return Embedding(
        features,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, size, bias=False),
        nn.BatchNorm1d(size),
    )


class SSDLite(nn.Module):
    """SSDLite on V3-Large: scores and box offsets of every anchor.

    Anchors, softmax and non-maximum suppression stay outside of the network, as in torchvision.
    """

    def __init__(self, *, short, classes, anchors=6):
        super().__init__()
        self.classes = classes
        features = v3_large(short=short, reduced_tail=True)
        split = 4 if short else 12 + 1  # C4 ends in the expansion of the first block of stride 32
        expansion, *rest = features[split].block
        self.c4 = nn.Sequential(*features[:split], expansion)
        self.c5 = nn.Sequential(nn.Sequential(*rest), *features[split + 1 :])
        channels = [expansion[0].out_channels, features[-1][0].out_channels]
        extras = []
        for width in (512, 256, 256, 128):
            out_channels = width // 8 if short else width
            between = out_channels // 2
            extras.append(
                nn.Sequential(
                    conv_norm(channels[-1], between, activation=nn.ReLU6),
                    conv_norm(between, between, 3, activation=nn.ReLU6, stride=2, groups=between),
                    conv_norm(between, out_channels, activation=nn.ReLU6),
                )
            )
            channels.append(out_channels)
        self.extras = nn.ModuleList(extras)
        self.scores = nn.ModuleList(self._head(each, anchors * classes) for each in channels)
        self.boxes = nn.ModuleList(self._head(each, anchors * 4) for each in channels)

    @staticmethod
    def _head(channels, out_channels):
        depthwise = conv_norm(channels, channels, 3, activation=nn.ReLU6, groups=channels)
        return nn.Sequential(depthwise, nn.Conv2d(channels, out_channels, 1))

    def forward(self, x):
        levels = [self.c4(x)]
        levels.append(self.c5(levels[0]))
        for extra in self.extras:
            levels.append(extra(levels[-1]))
        return {
            "scores": self._joined(self.scores, levels, self.classes),
            "boxes": self._joined(self.boxes, levels, 4),
        }

    @staticmethod
    def _joined(heads, levels, values):
        """Return (N, anchors of all levels, values)."""
        parts = []
        for head, level in zip(heads, levels, strict=True):
            y = head(level)
            n, _, height, width = y.shape
            y = y.view(n, -1, values, height, width).permute(0, 3, 4, 1, 2)
            parts.append(y.reshape(n, -1, values))
        return torch.cat(parts, dim=1)


def ssdlite(short=False):
    """Return SSDLite on V3-Large."""
    return SSDLite(short=short, classes=4 if short else COCO_CLASSES)


class LRASPP(nn.Module):
    """LR-ASPP on V3-Large: a map of class scores in the size of the image."""

    def __init__(self, *, short, classes):
        super().__init__()
        features = v3_large(short=short, dilated=True)
        split = 3 if short else 5  # the last layer with stride 8
        self.low, self.high = features[:split], features[split:]
        low, high = (each[-1] for each in (self.low, self.high))
        inter = 32 if short else 128
        channels = low.block[-1][0].out_channels, high[0].out_channels
        self.cbr = conv_norm(channels[1], inter)
        self.scale = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels[1], inter, 1, bias=False), nn.Sigmoid()
        )
        self.low_classifier = nn.Conv2d(channels[0], classes, 1)
        self.high_classifier = nn.Conv2d(inter, classes, 1)

    def forward(self, x):
        low = self.low(x)
        high = self.high(low)
        y = self.cbr(high) * self.scale(high)
        y = F.interpolate(y, size=low.shape[-2:], mode="bilinear", align_corners=False)
        y = self.low_classifier(low) + self.high_classifier(y)
        return F.interpolate(y, size=x.shape[-2:], mode="bilinear", align_corners=False)


def lraspp(short=False, classes=VOC_CLASSES):
    """Return LR-ASPP on V3-Large."""
    return LRASPP(short=short, classes=4 if short else classes)


class DeepLabV3(nn.Module):
    """DeepLabV3 on V2 with output stride 16: a map of class scores in the size of the image."""

    def __init__(self, *, short, classes):
        super().__init__()
        features, _ = v2(short=short)
        self.features = features[:-1]
        _dilate_last_stage(self.features)
        channels = self.features[-1].conv[-1].num_features
        inter = 32 if short else 256
        rates = (1, 2) if short else (12, 24, 36)
        self.branches = nn.ModuleList(
            [
                conv_norm(channels, inter),
                *(conv_norm(channels, inter, 3, dilation=rate) for rate in rates),
            ]
        )
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv_norm(channels, inter))
        self.project = nn.Sequential(
            conv_norm(inter * (len(self.branches) + 1), inter),
            nn.Dropout(0.5),
            conv_norm(inter, inter, 3),
            nn.Conv2d(inter, classes, 1),
        )

    def forward(self, x):
        y = self.features(x)
        pooled = F.interpolate(
            self.pooled(y), size=y.shape[-2:], mode="bilinear", align_corners=False
        )
        y = torch.cat([*(branch(y) for branch in self.branches), pooled], dim=1)
        return F.interpolate(
            self.project(y), size=x.shape[-2:], mode="bilinear", align_corners=False
        )


def _dilate_last_stage(features):
    """Replace the last stride of 2 by a dilation of 2 in the convolutions behind it."""
    depthwise = [m for m in features.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    last = max(i for i, conv in enumerate(depthwise) if conv.stride == (2, 2))
    depthwise[last].stride = (1, 1)
    for conv in depthwise[last + 1 :]:
        conv.dilation = conv.padding = (2, 2)


def deeplab_v3(short=False, classes=VOC_CLASSES):
    """Return DeepLabV3 on V2."""
    return DeepLabV3(short=short, classes=4 if short else classes)
