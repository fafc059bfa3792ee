"""Synthesise the bundled calibration images from MobileNetV2's BatchNorm statistics.

    python benchmarks/synthesize_calibration.py --out mobiledeploy/data/embedded [--device cuda]

Every image starts as coloured noise with the spectrum of photographs. It is optimized until the
batch's mean and variance in front of every BatchNorm match those that the network saw in training,
while each image is classified as a class of its own (DeepInversion: Yin et al., "Dreaming to
Distill" (2020), section 3.1). It differs in half of the steps, which see random enlarged crops, as
in training; this gives shapes at every scale and the activation ranges of photographs (decision
record 0013). The images need no licence and no download. Takes a minute on a GPU and hours on two
cores.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

import mobiledeploy

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


class Statistics:
    """Records the distance of each BatchNorm's input from its running statistics."""

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
    """Return noise with the 1/f spectrum of photographs, (count, 3, side, side)."""
    frequency = torch.hypot(
        *torch.meshgrid(torch.fft.fftfreq(side), torch.fft.fftfreq(side), indexing="ij")
    )
    frequency[0, 0] = 1 / side
    shared = torch.randn(count, 1, side, side, generator=generator)
    noise = 0.9 * shared + 0.45 * torch.randn(count, 3, side, side, generator=generator)
    noise = torch.fft.ifft2(torch.fft.fft2(noise) / frequency).real
    return noise / noise.std((1, 2, 3), keepdim=True)


def random_crop(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return a random square of the images, at least 0.6 of their side, enlarged to full size."""
    side = images.shape[-1]
    part = int(side * torch.empty(1).uniform_(0.6, 1.0, generator=generator).item())
    top, left = torch.randint(0, side - part + 1, (2,), generator=generator).tolist()
    square = images[:, :, top : top + part, left : left + part]
    return F.interpolate(square, size=(side, side), mode="bilinear", align_corners=False)


def synthesize(
    module: nn.Module, count: int, steps: int, generator: torch.Generator
) -> torch.Tensor:
    """Return normalised images (count, 3, 224, 224) that match the running statistics."""
    device = next(module.parameters()).device
    statistics = Statistics(module)
    targets = torch.randperm(1000, generator=generator)[:count].to(device)
    low, high = ((bound - MEAN) / STD for bound in (0, 1))
    images = coloured_noise(count, 224, generator).clamp(low, high).to(device).requires_grad_()
    low, high = low.to(device), high.to(device)
    optimizer = torch.optim.Adam([images], lr=0.1, betas=(0.5, 0.9))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=0.005)
    for step in range(steps):
        dy, dx = torch.randint(-16, 17, (2,), generator=generator).tolist()
        seen = images.roll((dy, dx), (2, 3))
        seen = seen.flip(3) if step % 2 else seen
        seen = random_crop(seen, generator) if step % 4 >= 2 else seen
        statistics.losses.clear()
        logits = module(seen.to(memory_format=torch.channels_last))
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
    return images.detach().cpu()


def main() -> None:
    """Parse options, synthesise images and write WebP files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", default="imagenet", help="or a checkpoint's path")
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=14)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    module = mobiledeploy.build("v2", weights=args.weights).module.requires_grad_(False)
    module.to(args.device, memory_format=torch.channels_last)
    images = synthesize(module, args.images, args.steps, torch.Generator().manual_seed(args.seed))
    pixels = ((images * STD + MEAN).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1)
    for number, image in enumerate(pixels.numpy()):
        path = args.out / f"{number:03d}.webp"
        Image.fromarray(np.ascontiguousarray(image)).save(path, quality=85, method=6)


if __name__ == "__main__":
    main()
