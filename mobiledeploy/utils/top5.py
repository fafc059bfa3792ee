"""The five largest values of a classifier, as artifacts return them, and as one value per class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOP = 5
"""How many classes the activation "top5" returns, of networks that have so many."""


def spread(
    classes: NDArray[np.integer[Any]], values: NDArray[Any], size: int
) -> NDArray[np.float64]:
    """Return one value per class, (N, size): those of some classes, and 0 for the others.

    Args:
        classes: Indices of classes, (N, 5).
        values: Their values, (N, 5).
        size: Number of classes.
    """
    result = np.zeros((len(classes), size))
    np.put_along_axis(result, classes.astype(np.intp), values, axis=1)
    return result
