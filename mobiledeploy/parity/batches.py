"""Run a network on many images in small batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mobiledeploy.network import INPUT_NAME
from mobiledeploy.utils.outputs import joined_arrays
from mobiledeploy.utils.progress import track
from mobiledeploy.utils.threads import parallel_map

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    Logits = NDArray[np.float32]
    Inputs = NDArray[Any]  # of artifacts: images, or pixels in uint8
    RunBatch = Callable[[Mapping[str, Inputs]], Mapping[str, Logits]]

_BATCH = 2  # larger batches do not fit the caches and are slower per image


def run_in_batches(
    run: RunBatch, inputs: Inputs, description: str, *, in_parallel: bool = True
) -> Logits:
    """Run a network on all inputs in small batches; return the logits, (N, classes).

    Args:
        run: The network. If `in_parallel`, several threads call it at once.
        inputs: (N, C, H, W), or pixels.
        description: Shown with the progress.
        in_parallel: Run several batches at once, each on one thread. That is faster than one batch
            on several threads, and gives the same bits on any machine.
    """
    batches = in_batches(inputs)

    def logits(batch: Inputs) -> Logits:
        return joined_arrays(run({INPUT_NAME: batch}))

    results = parallel_map(logits, batches) if in_parallel else map(logits, batches)
    return np.concatenate(list(track(results, description, len(batches))))


def in_batches(images: Inputs) -> list[Inputs]:
    """Split images or pixels into the batches that are run at once."""
    return np.array_split(images, max(1, -(-len(images) // _BATCH)))
