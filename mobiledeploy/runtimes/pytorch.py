"""PyTorch as a runtime: for a float model, or for a quantized graph before export."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.export import ExportedProgram

from mobiledeploy.errors import RuntimeFailedError
from mobiledeploy.network import OUTPUT_NAME
from mobiledeploy.runtimes.runner import in_batches_of, single_input
from mobiledeploy.utils.outputs import tensors_of
from mobiledeploy.utils.threads import channels_last

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Self

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn


class EagerRunner:
    """A module or an exported program, run by PyTorch.

    Args:
        model: In eval mode. An `ExportedProgram` runs with the batch that it was exported with.
        threads: Size of PyTorch's thread pool during a run. The pool belongs to the whole process;
            its size is restored after each run.
        batch_size: The batch of a module that needs a fixed one; None if any will do.
    """

    runtime = "torch"
    version = str(torch.__version__)
    thread_safe = True
    input_type = "float32"
    metadata: Mapping[str, object] = {}
    labels: tuple[str, ...] = ()

    def __init__(
        self,
        model: nn.Module | ExportedProgram,
        *,
        threads: int = 1,
        batch_size: int | None = None,
    ) -> None:
        self.threads = threads
        self.batch_size = batch_size
        self.input_shape: tuple[int, ...] | None = None
        if isinstance(model, ExportedProgram):
            self.batch_size, self.input_shape = _exported_shape(model)
            self._module: nn.Module = model.module()
        else:
            self._module = model

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[np.float32]]:
        """Run the network (see `Runner.run`)."""
        samples = single_input(inputs, self.input_shape)
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            if self.batch_size is None:
                return _named(self._run_batch(samples))
            return _named(in_batches_of(self.batch_size, samples, self._run_batch))
        finally:
            torch.set_num_threads(before)

    def _run_batch(self, batch: NDArray[Any]) -> list[NDArray[np.float32]]:
        try:
            with torch.inference_mode():
                # channels last is nearly twice as fast for depthwise convolutions
                outputs = tensors_of(self._module(channels_last(batch)))
        except RuntimeError as error:
            raise RuntimeFailedError(f"PyTorch failed while running the model: {error}") from error
        return [output.contiguous().numpy() for output in outputs]

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Do nothing: the module belongs to the caller."""


def _named(outputs: Sequence[NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Return outputs by name; a module has no names for several."""
    if len(outputs) == 1:
        return {OUTPUT_NAME: outputs[0]}
    return {f"output_{number}": output for number, output in enumerate(outputs)}


def _exported_shape(program: ExportedProgram) -> tuple[int | None, tuple[int, ...]]:
    """Return the fixed batch (None if it is symbolic) and the shape of one sample."""
    (name,) = program.graph_signature.user_inputs
    placeholder = next(node for node in program.graph.nodes if node.name == name)
    batch, *sample = placeholder.meta["val"].shape
    return (batch if isinstance(batch, int) else None, tuple(int(size) for size in sample))
