"""The ExecuTorch runtime on this machine's CPU, with XNNPACK."""

from __future__ import annotations

import weakref
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, cast

import torch

from mobiledeploy.artifact.metadata import output_names
from mobiledeploy.artifact.pte_file import (
    LABELS_METHOD,
    METADATA_METHOD,
    METHOD,
    check_pte,
    decode_description,
)
from mobiledeploy.devices.agent.runtimes import executorch_bindings
from mobiledeploy.errors import ArtifactError, RuntimeFailedError, UsageError
from mobiledeploy.runtimes.native_output import captured_stderr
from mobiledeploy.runtimes.runner import as_values, in_batches_of, single_input
from mobiledeploy.utils.files import require_utf8

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    import numpy as np
    from numpy.typing import NDArray


_BINDINGS = executorch_bindings()
# a damaged file may also have names that are no UTF-8 or values of other types
_LOADING = (RuntimeError, MemoryError, ValueError, TypeError, AttributeError)
_INPUT_TYPES = {0: "uint8", 6: "float32"}  # executorch/runtime/core/portable_type/scalar_type.h


class ExecuTorchRunner:
    """A `.pte` file in ExecuTorch.

    The batch is the one that was exported, which is 1 throughout mobiledeploy. The thread pool
    belongs to the whole process, so all runners that are open at one time have the same number of
    threads.

    Args:
        path: The program.
        threads: Size of the process's thread pool.
        optimize: Must be True: a `.pte` was optimized when it was exported.

    Raises:
        ArtifactError: ExecuTorch rejects the file, or its method "forward" does not take one
            float32 (N, C, H, W) or uint8 pixels and return one float32 (N, classes).
        RuntimeFailedError: Another runner is open with another number of threads.
        UsageError: `optimize` is False, or the path is not UTF-8.
    """

    runtime = "executorch"
    version = version("executorch")
    thread_safe = False  # a method writes into memory of its own

    def __init__(self, path: Path, *, threads: int = 1, optimize: bool = True) -> None:
        if not optimize:
            raise UsageError(
                f"{path}: the optimizations of a .pte cannot be switched off.",
                remedy="Use an .onnx for this.",
            )
        self.path = path
        self.threads = threads
        require_utf8(path)
        check_pte(path)
        _set_threads(threads)
        # The method points into the program, which must outlive it.
        self._program, self._method = _load(path)
        self.metadata, self.labels = decode_description(
            path, self._constant(METADATA_METHOD), self._constant(LABELS_METHOD)
        )
        self._names = output_names(self.metadata)
        self.input_type, (batch, *sample) = self._input()
        self.batch_size: int = batch
        self.input_shape: tuple[int, ...] = tuple(sample)
        _open.add(self)

    def _input(self) -> tuple[str, tuple[int, ...]]:
        """Return the datatype and the shape of the input."""
        meta = self._method.method_meta()
        tensors = [meta.input_tensor_meta(i) for i in range(meta.num_inputs())]
        outputs = meta.num_outputs()
        images = [t for t in tensors if t.dtype() in _INPUT_TYPES and len(t.sizes()) == 4]
        if len(tensors) != 1 or not images or outputs != len(self._names):
            raise ArtifactError(
                f"{self.path}: {METHOD!r} takes {tensors} and returns {outputs} values; "
                "expected one float32 (N, C, H, W) or uint8 of four axes and"
                f" {len(self._names)} outputs.",
                remedy="Export the model with `mobiledeploy export`.",
            )
        return _INPUT_TYPES[tensors[0].dtype()], tuple(tensors[0].sizes())

    def _constant(self, name: str) -> bytes:
        """Return the uint8 tensor that a method returns; b"" if there is no such method.

        Raises:
            ArtifactError: The method is damaged.
        """
        names = [self._program.get_method_name(i) for i in range(self._program.num_methods())]
        if name not in names:
            return b""
        with captured_stderr():
            try:
                (value,) = self._program.load_method(name)(())
                return cast("bytes", value.numpy().tobytes())
            except _LOADING as error:
                failure = error
        raise ArtifactError(
            f"{self.path}: its method {name!r} cannot be run: {failure}.",
            remedy="Export the model again, or copy the file again.",
        ) from failure

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[np.float32]]:
        """Run the network (see `Runner.run`)."""
        samples = single_input(inputs, self.input_shape, self.input_type)
        outputs = in_batches_of(self.batch_size, samples, self._run_batch)
        return as_values(outputs, self.metadata)

    def _run_batch(self, batch: NDArray[Any]) -> list[NDArray[np.float32]]:
        try:
            # The method clones its outputs, so they outlive the next run.
            outputs = self._method((torch.from_numpy(batch),))
        except RuntimeError as error:
            raise RuntimeFailedError(
                f"ExecuTorch failed while running {self.path}: {error}",
                remedy="Export the model again, or update ExecuTorch.",
            ) from error
        return [output.numpy() for output in outputs]

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Free the program."""
        _open.discard(self)
        del self._method, self._program


# The runners that use the thread pool. Weak references: a runner that was never closed is dropped.
_open: weakref.WeakSet[ExecuTorchRunner] = weakref.WeakSet()


def _set_threads(threads: int) -> None:
    """Set the size of the process's thread pool.

    This destroys the pool that loaded XNNPACK networks point to, so no runner may be open.

    Raises:
        RuntimeFailedError: A runner is open with another number of threads.
    """
    with captured_stderr():
        current = _BINDINGS._threadpool_get_thread_count()  # noqa: SLF001 - the only access
        if current == threads:
            return
        if _open:
            raise RuntimeFailedError(
                f"ExecuTorch has one thread pool per process: {len(_open)} open runners use "
                f"{current} threads, so another cannot use {threads}.",
                remedy="Close the other runners first, or use the same number of threads for all.",
            )
        _BINDINGS._unsafe_reset_threadpool(threads)  # noqa: SLF001 - the only access


def _load(path: Path) -> tuple[Any, Any]:
    """Load the program and its method; return both, the owner of the memory first.

    Raises:
        ArtifactError: ExecuTorch rejects the file.
    """
    with captured_stderr() as log:
        try:
            program = _BINDINGS._load_program(  # noqa: SLF001 - the only access without the exporter
                str(path), program_verification=_BINDINGS.Verification.InternalConsistency
            )
            return program, program.load_method(METHOD)
        except _LOADING as error:
            failure = error
    detail = f" ({log.last_line})" if log.last_line else ""
    raise ArtifactError(
        f"ExecuTorch {version('executorch')} cannot load {path}: {failure}{detail}.",
        remedy="Export the model again: the file is damaged, or it needs operators or backends "
        "that this runtime does not have.",
    ) from failure
