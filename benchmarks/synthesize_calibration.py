"""Make the embedded calibration images: photographs dreamt from MobileNetV2's own BatchNorm.

    python benchmarks/synthesize_calibration.py --out mobiledeploy/data/embedded [--images 64]

Every image starts as coloured noise with the spectrum of photographs and is optimized until the
batch's mean and variance in front of every BatchNorm are those that the network saw in training,
while each image is classified as a class of its own (DeepInversion: Yin et al., "Dreaming to
Distill" (2020), section 3.1). The result belongs to nobody, needs no download, and drives
activations to the ranges that real photographs do. Takes about 20 minutes on 2 cores; run by hand.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from mobiledeploy.models import create
from mobiledeploy.types import ModelSpec

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


class Statistics:
    """The distance of each BatchNorm's input from the statistics that the layer remembers."""

    def __init__(self, module: nn.Module) -> None:
        self.losses: list[torch.Tensor] = []
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.register_forward_pre_hook(self._record)

    def _record(self, layer: nn.BatchNorm2d, inputs: tuple[torch.Tensor, ...]) -> None:
        mean, variance = inputs[0].mean((0, 2, 3)), inputs[0].var((0, 2, 3), unbiased=False)
        expected = layer.running_var + layer.eps
        shift = ((mean - layer.running_mean) ** 2 / expected).mean()
        spread = ((torch.sqrt((variance + layer.eps) / expected) - 1) ** 2).mean()
        self.losses.append(shift + spread)


def coloured_noise(count: int, side: int, generator: torch.Generator) -> torch.Tensor:
    """Noise with the 1/f spectrum of photographs, (count, 3, side, side), unit variance."""
    frequency = torch.hypot(
        *torch.meshgrid(torch.fft.fftfreq(side), torch.fft.fftfreq(side), indexing="ij")
    )
    frequency[0, 0] = 1 / side
    shared = torch.randn(count, 1, side, side, generator=generator)
    noise = 0.9 * shared + 0.45 * torch.randn(count, 3, side, side, generator=generator)
    noise = torch.fft.ifft2(torch.fft.fft2(noise) / frequency).real
    return noise / noise.std((1, 2, 3), keepdim=True)


def dream(module: nn.Module, count: int, steps: int, generator: torch.Generator) -> torch.Tensor:
    """Return (count, 3, 224, 224) normalised images that match the statistics."""
    statistics = Statistics(module)
    low, high = (0 - MEAN) / STD, (1 - MEAN) / STD
    images = coloured_noise(count, 224, generator).clamp(low, high).requires_grad_()
    targets = torch.randperm(1000, generator=generator)[:count]
    optimizer = torch.optim.Adam([images], lr=0.1, betas=(0.5, 0.9))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=0.005)
    for step in range(steps):
        dy, dx = torch.randint(-16, 17, (2,), generator=generator).tolist()
        moved = images.roll((dy, dx), (2, 3))
        moved = moved.flip(3) if step % 2 else moved
        statistics.losses.clear()
        logits = module(moved.to(memory_format=torch.channels_last))
        matching = torch.stack(statistics.losses).sum()
        roughness = (images.diff(dim=2) ** 2).mean() + (images.diff(dim=3) ** 2).mean()
        loss = matching + 0.5 * F.cross_entropy(logits, targets) + 0.05 * roughness
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            images.copy_(images.clamp(low, high))
        if step % 20 == 0 or step == steps - 1:
            hits = (logits.argmax(1) == targets).float().mean()
            print(f"step {step}: statistics {matching:.2f}, hits {hits:.2f}", flush=True)
    return images.detach()


def main() -> None:
    """Parse, dream in batches, write WebP files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", type=Path, help="state dict; default: the cached ImageNet one")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(args.seed)
    for start in range(0, args.images, args.batch):
        module = create(ModelSpec(family="v2", weights="random"))
        module.load_state_dict(torch.load(args.weights, weights_only=True))
        module.eval().requires_grad_(False)
        module.to(memory_format=torch.channels_last)
        images = dream(module, args.batch, args.steps, generator)
        pixels = ((images * STD + MEAN).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1)
        for offset, image in enumerate(pixels.numpy()):
            path = args.out / f"{start + offset:03d}.webp"
            Image.fromarray(np.ascontiguousarray(image)).save(path, quality=85, method=6)


if __name__ == "__main__":
    main()
