"""Weights and images out of a seed, the same for any implementation on any machine.

Every tensor is drawn from its own name and shape, so neither the order of a state dict nor the
initialisation of its modules has a say. Uniform draws and arithmetic in float64: no platform's
`log` or `exp` can change a last bit.
"""

import hashlib
import math

import numpy as np
import torch

GAIN = math.sqrt(6)  # He: uniform on +-sqrt(6 / fan_in) has the variance 2 / fan_in


def _uniform(seed: int, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Draw from [-1, 1), float64."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = np.random.Generator(np.random.PCG64(int.from_bytes(digest)))
    return torch.as_tensor(2 * generator.random(shape) - 1)


def golden_tensor(seed: int, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Return the value of one entry of a state dict."""
    draw = _uniform(seed, name, shape)
    kind = name.rsplit(".", 1)[-1]
    if kind == "num_batches_tracked":
        return torch.tensor(1)
    if kind == "running_var":
        return 1.25 + draw * 0.75
    if kind in ("running_mean", "bias"):
        return draw * 0.5
    if len(shape) == 1:
        return 1 + draw * 0.5  # gamma
    return draw * GAIN / math.sqrt(math.prod(shape[1:]))


def golden_state(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, torch.Tensor]:
    """Return a state dict with these names and shapes, in float64."""
    return {name: golden_tensor(seed, name, shape) for name, shape in shapes.items()}


def golden_images(seed: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Return images in [-2, 2), float64: each a coarse pattern, so that they differ as a whole."""
    n, channels, height, width = shape
    coarse = _uniform(seed, "images", (n, channels, 4, 4))
    fine = _uniform(seed, "texture", shape)
    tiled = coarse.repeat_interleave(height // 4, 2).repeat_interleave(width // 4, 3)
    return tiled * 1.5 + fine * 0.5
