"""Images of half the height and width, on which learning and rough searches cost a quarter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Of the halved images: a stride of 32 leaves one pixel.
_LEAST_SIDE = 32


def halved(images: NDArray[np.float32], network: torch.nn.Module) -> NDArray[np.float32]:
    """Return images of half the height and width, if the network takes them.

    A network may need the size that it was traced with, for example where it reshapes a map.
    """
    height, width = images.shape[2:]
    if min(height, width) < 2 * _LEAST_SIDE:
        return images
    smaller = F.avg_pool2d(torch.from_numpy(images), 2).numpy()
    try:
        with torch.no_grad():
            network(torch.from_numpy(smaller[:1]))
    except RuntimeError:
        return images
    return smaller
