"""The interface of every runtime: named arrays in, named arrays out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from mobiledeploy.errors import RuntimeFailedError
from mobiledeploy.network import INPUT_NAME, OUTPUT_NAME
from mobiledeploy.utils.top5 import spread

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from numpy.typing import NDArray


class Runner(Protocol):
    """A loaded network. Use it as a context manager: leaving the context frees it.

    A network with a fixed batch (`batch_size` is an int; a `.pte` always has 1) runs batch by batch
    and its outputs are stacked, so callers may pass any multiple of it. To time one inference, pass
    exactly one batch.
    """

    @property
    def runtime(self) -> str:
        """Return the runtime's name: "onnxruntime", "executorch" or "torch"."""

    @property
    def version(self) -> str:
        """Return the runtime's version."""

    @property
    def threads(self) -> int:
        """Return the number of threads that compute one inference."""

    @property
    def thread_safe(self) -> bool:
        """Return whether several threads may call `run` at the same time."""

    @property
    def batch_size(self) -> int | None:
        """Return the fixed number of samples per inference; None if it is symbolic."""

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """Return the shape of one sample, (C, H, W) or (H, W, C); None if unknown."""

    @property
    def input_type(self) -> str:
        """Return the NumPy datatype of the input: "float32", or "uint8" for pixels."""

    @property
    def metadata(self) -> Mapping[str, object]:
        """Return the metadata that mobiledeploy wrote; empty for artifacts of other exporters."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the names of the classes; empty if the artifact has none."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[np.float32]]:
        """Run the network.

        Args:
            inputs: {"input": float32 (N, C, H, W)}, or pixels in uint8 as the artifact takes
                them.

        Returns:
            The outputs by name, float32 (N, ...), in the graph's order and owned by the caller: one
            "logits" (N, classes), unless the metadata name others.

        Raises:
            RuntimeFailedError: The inputs do not fit the network, or the runtime failed.
        """

    def __enter__(self) -> Self:
        """Return itself."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Free the network."""


def single_input(
    inputs: Mapping[str, NDArray[Any]],
    input_shape: tuple[int, ...] | None,
    input_type: str = "float32",
) -> NDArray[Any]:
    """Return the one input, contiguous and writable (torch warns about arrays that are not).

    Raises:
        RuntimeFailedError: The name, the dtype or the shape is wrong, or there are no samples.
    """
    if set(inputs) != {INPUT_NAME}:
        raise RuntimeFailedError(
            f"The network has one input, {INPUT_NAME!r}; it was given {sorted(inputs)}.",
            remedy=f"Pass {{{INPUT_NAME!r}: images}}.",
        )
    batch = inputs[INPUT_NAME]
    if batch.dtype != input_type:
        remedy = (
            "Pass pixels as they are, without normalisation."
            if input_type == "uint8"
            else "Convert the batch with .astype(numpy.float32)."
        )
        raise RuntimeFailedError(
            f"The network takes {input_type}; it was given {batch.dtype}.", remedy=remedy
        )
    if batch.ndim != 4 or len(batch) == 0 or (input_shape and batch.shape[1:] != input_shape):
        expected = ", ".join(str(n) for n in input_shape) if input_shape else "C, H, W"
        raise RuntimeFailedError(
            f"The network takes (N, {expected}) with N > 0; it was given {batch.shape}.",
            remedy="Preprocess the images to the resolution that the artifact was exported for.",
        )
    return np.require(batch, requirements=["C", "W"])


def as_values(
    tensors: Sequence[NDArray[Any]], metadata: Mapping[str, object]
) -> dict[str, NDArray[np.float32]]:
    """Return the outputs of a network, in float32, from the tensors of its artifact.

    Codes are dequantized as an app would do it. Of the five largest probabilities come all classes,
    with 0 for the others.

    Args:
        tensors: What the artifact returns, in order.
        metadata: The document in the artifact; empty for a file of another exporter.

    Raises:
        RuntimeFailedError: There are fewer tensors than the metadata name, or of other shapes.
    """
    try:
        return _as_values(tensors, metadata)
    except (StopIteration, IndexError, ValueError) as error:
        found = ", ".join(f"{each.dtype} {each.shape}" for each in tensors)
        raise RuntimeFailedError(
            f"The runtime returned {found or 'nothing'}, which is not what the artifact's metadata"
            f" describe.",
            remedy="Update the runtime, or export the model again.",
        ) from error


def _as_values(
    tensors: Sequence[NDArray[Any]], metadata: Mapping[str, object]
) -> dict[str, NDArray[np.float32]]:
    described = cast("list[dict[str, Any]]", metadata.get("outputs", []))
    found: dict[str, NDArray[np.float32]] = {}
    remaining = iter(tensors)
    for output in described or [{"name": OUTPUT_NAME}]:
        values = next(remaining)
        if "scale" in output:
            steps = values.astype(np.float32) - np.float32(output["zero_point"])
            values = steps * np.float32(output["scale"])
        elif "tensors" in output:
            size = math.prod(output["shape"])
            values = spread(values, next(remaining), size).astype(np.float32)
        found[output["name"]] = values
    return found


def in_batches_of(
    size: int,
    samples: NDArray[Any],
    run: Callable[[NDArray[Any]], Sequence[NDArray[np.float32]]],
) -> list[NDArray[np.float32]]:
    """Run `samples` through a network of fixed batch `size`; return each output, stacked.

    Raises:
        RuntimeFailedError: The number of samples is not a multiple of `size`.
    """
    if len(samples) % size:
        raise RuntimeFailedError(
            f"The network takes {size} samples at a time; it was given {len(samples)}.",
            remedy=f"Pass a multiple of {size} samples.",
        )
    if len(samples) == size:
        return list(run(samples))
    batches = [run(samples[start : start + size]) for start in range(0, len(samples), size)]
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]
