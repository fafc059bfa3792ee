"""MobileNet implementations in common use, with the names of their checkpoints.

Each reproduces a widespread implementation in a few lines: module names, order of
definition, activation.
"""

from collections.abc import Sequence

import torch
from torch import nn

from mobiledeploy.models.build import create
from mobiledeploy.models.spec import ModelSpec

V1 = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *5 * [(512, 1)]]
V1 += [(1024, 2), (1024, 1)]
V2 = [(1, 1, 1), (6, 2, 2), (6, 3, 2), (6, 4, 2), (6, 3, 1), (6, 3, 2), (6, 1, 1)]  # t, n, s


def full(c: int, out: int, k: int, s: int, *act: nn.Module) -> list[nn.Module]:
    return [nn.Conv2d(c, out, k, s, k // 2, bias=False), nn.BatchNorm2d(out), *act]


def depthwise(c: int, k: int, s: int, *act: nn.Module) -> list[nn.Module]:
    return [nn.Conv2d(c, c, k, s, k // 2, groups=c, bias=False), nn.BatchNorm2d(c), *act]


class ListOfLayersV1(nn.Module):
    """`model.{i}.{j}` and `fc`: conv, bn, relu, conv, bn, relu in one Sequential per block."""

    def __init__(self, width: float, classes: int) -> None:
        super().__init__()
        c, relu = int(32 * width), nn.ReLU()
        layers = [nn.Sequential(*full(3, c, 3, 2, relu))]
        for out, s in V1:
            wide = int(out * width)
            layers.append(nn.Sequential(*depthwise(c, 3, s, relu), *full(c, wide, 1, 1, relu)))
            c = wide
        self.model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1))
        self.fc = nn.Linear(c, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.model(x).flatten(1))


class NamedLayersV1(nn.Module):
    """`conv1`, `bn1`, `layers.{i}.conv1`, ..., `linear`: every layer has its own name."""

    class Block(nn.Module):
        def __init__(self, c: int, out: int, s: int) -> None:
            super().__init__()
            self.conv1, self.bn1 = depthwise(c, 3, s)
            self.conv2, self.bn2 = full(c, out, 1, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.bn1(self.conv1(x)).clamp(0, 6)
            return self.bn2(self.conv2(x)).clamp(0, 6)

    def __init__(self, width: float, classes: int) -> None:
        super().__init__()
        c = int(32 * width)
        self.conv1, self.bn1 = full(3, c, 3, 2)
        layers = []
        for out, s in V1:
            layers.append(self.Block(c, int(out * width), s))
            c = int(out * width)
        self.layers = nn.Sequential(*layers)
        self.linear = nn.Linear(c, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layers(self.bn1(self.conv1(x)).clamp(0, 6))
        return self.linear(x.mean((2, 3)))


class FlatV2(nn.Module):
    """`features.{i}.conv.{j}` without nesting, the last convolution as `conv`, `classifier`."""

    class Block(nn.Module):
        def __init__(self, c: int, out: int, s: int, t: int) -> None:
            super().__init__()
            self.residual = s == 1 and c == out
            expand = full(c, c * t, 1, 1, nn.ReLU6()) if t != 1 else []
            project = full(c * t, out, 1, 1)
            self.conv = nn.Sequential(*expand, *depthwise(c * t, 3, s, nn.ReLU6()), *project)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.conv(x) if self.residual else self.conv(x)

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        c, *outs, head = channels
        layers: list[nn.Module] = [nn.Sequential(*full(3, c, 3, 2, nn.ReLU6()))]
        for out, (t, n, s) in zip(outs, V2, strict=True):
            for i in range(n):
                layers.append(self.Block(c, out, s if i == 0 else 1, t))
                c = out
        self.features = nn.Sequential(*layers)
        self.conv = nn.Sequential(*full(c, head, 1, 1, nn.ReLU6()))
        self.classifier = nn.Linear(head, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.conv(self.features(x)).mean((2, 3)))


def distinct(spec: ModelSpec) -> nn.Module:
    """Build a network in which all values differ, so that no two layers can be confused."""
    module = create(spec)
    generator = torch.Generator().manual_seed(spec.seed + 1)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            else:
                tensor.fill_(len(name))
    return module
