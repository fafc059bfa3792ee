"""Seeded initial weights, and BatchNorm statistics like those of a trained network.

Neither changes torch's global random state.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from mobiledeploy.errors import UsageError

BatchNorm = nn.modules.batchnorm._BatchNorm  # noqa: SLF001 - the only common base of BN 1d, 2d, 3d

_IMAGES = 16
_SIDE = 128


def initialize(module: nn.Module, seed: int) -> None:
    """Fill every parameter and buffer of `module` in place, reproducibly from a seed.

    Convolutions and linear layers: He et al. 2015 (arXiv 1502.01852) with fan-in, which preserves
    the variance through depthwise convolutions too (torch's fan-out ignores groups and is hundreds
    of times too large). BatchNorm: the identity.
    """
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, BatchNorm):
            layer.reset_parameters()


@torch.no_grad()
def randomize_batch_norm(
    module: nn.Module, seed: int, size: tuple[int, int] = (_SIDE, _SIDE)
) -> None:
    """Set every BatchNorm layer, in place, to statistics and affine parameters like trained ones.

    A fresh BatchNorm is the identity: it hides errors of folding, and the signal vanishes in a
    random network. Here each BatchNorm in turn measures its input on seeded images, as in training,
    and is set near those statistics. So the signal survives any depth and the logits depend on the
    image.

    Args:
        module: A network in eval mode with initialised weights; its first convolution takes images.
        seed: Seed of the images and of the random deviations.
        size: Height and width of the images; heads that read all pixels take only one size.

    Raises:
        UsageError: `module` has no BatchNorm layer.
    """
    norms = [layer for layer in module.modules() if isinstance(layer, BatchNorm)]
    if not norms:
        raise UsageError("The module has no BatchNorm layer to randomise.")
    generator = torch.Generator().manual_seed(seed)
    first = next(layer for layer in module.modules() if isinstance(layer, nn.Conv2d))
    images = _natural_noise(first.in_channels, size, generator).to(first.weight)

    def settle(norm: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        assert isinstance(norm, BatchNorm)
        _settle(norm, inputs[0], generator)

    hooks = [norm.register_forward_pre_hook(settle) for norm in norms]
    try:
        module(images)
    finally:
        for hook in hooks:
            hook.remove()


def _natural_noise(
    channels: int, size: tuple[int, int], generator: torch.Generator
) -> torch.Tensor:
    """Return noise images, (N, channels, *size), with a random share of every scale.

    Photographs vary in the same way between smooth and detailed. White noise has the same average
    over every image, so the logits would hardly depend on the image.
    """
    total = torch.zeros(_IMAGES, channels, *size)
    for octave in range(max(size).bit_length()):
        energy = torch.randn(_IMAGES, 1, 1, 1, generator=generator).exp()
        grid = torch.randn(_IMAGES, channels, 2**octave, 2**octave, generator=generator)
        total += energy * F.interpolate(grid, size, mode="bilinear", align_corners=False)
    return total / total.std()


def _settle(norm: BatchNorm, x: torch.Tensor, generator: torch.Generator) -> None:
    """Set one BatchNorm's state near the statistics of its input `x`, (N, C, ...)."""

    def drawn(spread: float) -> torch.Tensor:
        return torch.randn(norm.num_features, generator=generator).to(x) * spread

    if norm.affine:
        norm.weight.copy_(drawn(0.3).exp())
        norm.bias.copy_(drawn(0.3))
    if norm.running_mean is not None and norm.running_var is not None:
        variance, mean = torch.var_mean(x.transpose(0, 1).flatten(1), dim=1)
        norm.running_mean.copy_(mean + variance.sqrt() * drawn(0.1))
        norm.running_var.copy_(variance * drawn(0.2).exp())
