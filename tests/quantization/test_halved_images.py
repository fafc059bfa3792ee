"""Images are halved where that leaves the network something to see."""

import networks
import numpy as np
import torch

from mobiledeploy.quantization.halved_images import halved


class _Flat(torch.nn.Module):
    """A network that needs the size that it was traced with."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 2, 3, padding=1)
        self.linear = torch.nn.Linear(2 * 64 * 64, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.linear(self.convolution(images).flatten(1))


def test_images_are_halved_where_the_network_takes_them():
    images = networks.pixels(64, count=2)
    every_size = torch.nn.Conv2d(3, 2, 3, padding=1)
    smaller = halved(images, every_size)
    assert smaller.shape == (2, 3, 32, 32)
    np.testing.assert_allclose(smaller[:, :, 0, 0], images[:, :, :2, :2].mean((2, 3)), rtol=1e-5)
    one_size = _Flat()
    assert halved(images, one_size) is images
    assert halved(smaller, every_size) is smaller  # already small
