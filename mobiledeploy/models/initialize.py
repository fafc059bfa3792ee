"""Weights out of a seed, and BN statistics that look trained.

Neither touches torch's global random state.
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
    """Fill every parameter and buffer of `module` in place, reproducibly.

    Convolutions and linear layers: He et al. 2015 (arXiv 1502.01852), fan-in, which keeps a
    signal's variance also through depthwise convolutions (torch counts their fan-out without the
    groups, hundreds of times too large). BatchNorm: the identity.
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
def randomize_batch_norm(module: nn.Module, seed: int) -> None:
    """Give every BN layer, in place, statistics and affine parameters as spread as trained ones.

    A fresh BN is the identity: it hides a fold that is wrong, and in a random network it lets the
    signal die. Here each BN in turn measures what reaches it from seeded images, as training would,
    and settles a little off that. So the signal stays alive through any depth, and the logits
    depend on the image.

    Args:
        module: In eval mode, with its weights initialised; its first convolution takes images.
        seed: Of the images and of the spread.

    Raises:
        UsageError: `module` has no BN layer.
    """
    norms = [layer for layer in module.modules() if isinstance(layer, BatchNorm)]
    if not norms:
        raise UsageError("There is no BatchNorm layer to randomise in the module.")
    generator = torch.Generator().manual_seed(seed)
    first = next(layer for layer in module.modules() if isinstance(layer, nn.Conv2d))
    images = _natural_noise(first.in_channels, generator).to(first.weight)

    def settle(norm: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        assert isinstance(norm, BatchNorm)
        _settle(norm, inputs[0], generator)

    hooks = [norm.register_forward_pre_hook(settle) for norm in norms]
    try:
        module(images)
    finally:
        for hook in hooks:
            hook.remove()


def _natural_noise(channels: int, generator: torch.Generator) -> torch.Tensor:
    """Return noise on every scale, in other proportions in every image: (N, channels, side, side).

    As photographs are: some smooth, some busy. White noise would not do: averaged over an image it
    is the same everywhere, and every logit would be blind to its input.
    """
    total = torch.zeros(_IMAGES, channels, _SIDE, _SIDE)
    for octave in range(_SIDE.bit_length()):
        energy = torch.randn(_IMAGES, 1, 1, 1, generator=generator).exp()
        grid = torch.randn(_IMAGES, channels, 2**octave, 2**octave, generator=generator)
        total += energy * F.interpolate(grid, (_SIDE, _SIDE), mode="bilinear", align_corners=False)
    return total / total.std()


def _settle(norm: BatchNorm, x: torch.Tensor, generator: torch.Generator) -> None:
    """Set one BN's state around the statistics of its input `x` (N, C, ...), before it runs."""

    def drawn(spread: float) -> torch.Tensor:
        return torch.randn(norm.num_features, generator=generator).to(x) * spread

    if norm.affine:
        norm.weight.copy_(drawn(0.3).exp())
        norm.bias.copy_(drawn(0.3))
    if norm.running_mean is not None and norm.running_var is not None:
        variance, mean = torch.var_mean(x.transpose(0, 1).flatten(1), dim=1)
        norm.running_mean.copy_(mean + variance.sqrt() * drawn(0.1))
        norm.running_var.copy_(variance * drawn(0.2).exp())
