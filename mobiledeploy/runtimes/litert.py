"""LiteRT, formerly TensorFlow Lite, on this machine's CPU, with XNNPACK."""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from mobiledeploy.artifact.artifact import damage_explained
from mobiledeploy.artifact.metadata import output_names
from mobiledeploy.artifact.tflite_file import read_metadata, read_tflite
from mobiledeploy.errors import ArtifactError, RuntimeFailedError, UsageError
from mobiledeploy.runtimes.native_output import captured_stderr
from mobiledeploy.runtimes.runner import as_values, in_batches_of, single_input
from mobiledeploy.utils.files import require_utf8

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from numpy.typing import NDArray

_INPUTS = (np.float32, np.uint8)
_ERRORS = (RuntimeError, ValueError, MemoryError)


class LiteRTRunner:
    """A `.tflite` file in LiteRT. It reads images as (H, W, C).

    `run` takes pixels as the file does and float images as (C, H, W), like all runners.

    Args:
        path: The file.
        threads: Threads that compute one inference.
        optimize: Must be True: what XNNPACK fuses cannot be switched off here.

    Raises:
        ArtifactError: LiteRT rejects the file, or it does not take one float32 (1, H, W, C) or
            uint8 pixels and return outputs.
        UsageError: `optimize` is False, or the path is not UTF-8.
    """

    runtime = "litert"
    version = version("ai-edge-litert")
    thread_safe = False  # an interpreter writes into memory of its own

    def __init__(self, path: Path, *, threads: int = 1, optimize: bool = True) -> None:
        if not optimize:
            raise UsageError(
                f"{path}: the optimizations of a .tflite cannot be switched off.",
                remedy="Use an .onnx for this.",
            )
        require_utf8(path)
        self.path, self.threads = path, threads
        self.metadata, self.labels = read_metadata(path, read_tflite(path))
        with captured_stderr() as log:
            try:
                self._interpreter = Interpreter(model_path=os.fspath(path), num_threads=threads)
                self._interpreter.allocate_tensors()
            except _ERRORS as error:
                failure: Exception | None = error
            else:
                failure = None
        if failure is not None:
            detail = f" ({log.last_line})" if log.last_line else ""
            raise ArtifactError(
                f"LiteRT {self.version} cannot load {path}: {failure}{detail}.",
                remedy="Export the model again: the file is damaged, or it needs operators that"
                " this runtime does not have.",
            ) from failure
        with damage_explained(path):
            self._input, self._outputs, (batch, *sample) = self._signature()
        self.batch_size: int = batch
        self.input_type = np.dtype(self._interpreter.get_input_details()[0]["dtype"]).name
        if self.input_type == "float32":  # planes are its input, as in every other runtime
            sample = [sample[2], *sample[:2]]
        self.input_shape = tuple(sample)

    def _signature(self) -> tuple[int, list[int], tuple[int, int, int, int]]:
        """Return the numbers of input and outputs, and the shape of the input."""
        inputs, outputs = (
            self._interpreter.get_input_details(),
            self._interpreter.get_output_details(),
        )
        image = inputs[0] if len(inputs) == 1 else None
        if image is None or len(image["shape"]) != 4 or image["dtype"] not in _INPUTS:
            found = [(each["name"], each["dtype"].__name__, list(each["shape"])) for each in inputs]
            raise ArtifactError(
                f"{self.path} takes {found}; expected one float32 (1, H, W, C), or uint8"
                " (1, H, W, C) or (1, C, H, W).",
                remedy="Export the model with `mobiledeploy export`.",
            )
        if len(outputs) != len(output_names(self.metadata)):
            raise ArtifactError(
                f"{self.path} has {len(outputs)} outputs; expected"
                f" {len(output_names(self.metadata))}.",
                remedy="Export the model with `mobiledeploy export`.",
            )
        shape = tuple(int(size) for size in image["shape"])
        if min(shape) < 1:
            raise ValueError(f"its input has the shape {shape}")
        numbers = [output["index"] for output in outputs]
        return image["index"], numbers, cast("tuple[int, int, int, int]", shape)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[np.float32]]:
        """Run the network (see `Runner.run`)."""
        samples = single_input(inputs, self.input_shape, self.input_type)
        outputs = in_batches_of(self.batch_size, samples, self._run_batch)
        return as_values(outputs, self.metadata)

    def _run_batch(self, batch: NDArray[Any]) -> list[NDArray[np.float32]]:
        try:
            is_pixels = self.input_type == "uint8"
            images = batch if is_pixels else np.ascontiguousarray(batch.transpose(0, 2, 3, 1))
            self._interpreter.set_tensor(self._input, images)
            self._interpreter.invoke()
            return [_planes(self._interpreter.get_tensor(number)) for number in self._outputs]
        except _ERRORS as error:
            raise RuntimeFailedError(
                f"LiteRT failed while running {self.path}: {error}",
                remedy="Export the model again, or update LiteRT.",
            ) from error

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Free the interpreter."""
        del self._interpreter


def _planes(output: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return an output with the channels of images in front, as all runners do."""
    is_image = output.ndim == 4
    return np.ascontiguousarray(output.transpose(0, 3, 1, 2)) if is_image else output
