"""The networks of the seeds."""

from __future__ import annotations

import torch
from torch import nn

CLASSES = 4


class Tiny(nn.Module):
    """A convolution, a depthwise one with a shortcut, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU6())
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.BatchNorm2d(8))
        self.classifier = nn.Linear(8, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits, (N, 4)."""
        features = self.stem(images)
        features = features + self.block(features)
        logits: torch.Tensor = self.classifier(features.mean((2, 3)))
        return logits


class ModuleOfSeeds(nn.Module):
    """Layers with the names of the first and last ones of torchvision's MobileNetV2."""

    def __init__(self) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8))
        self.features = nn.Sequential(stem)
        self.classifier = nn.Sequential(nn.Dropout(), nn.Linear(8, CLASSES))
