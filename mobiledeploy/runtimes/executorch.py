"""The ExecuTorch runtime on this machine's CPU, with XNNPACK."""

from __future__ import annotations

import math
import weakref
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

# The same extension module that `executorch.runtime` wraps, without the exporter that importing
# the wrapper drags in (3 of 4 seconds), and with the thread pool, which the wrapper does not have.
from executorch.extension.pybindings import _portable_lib

from mobiledeploy.artifact.pte_file import (
    LABELS_METHOD,
    METADATA_METHOD,
    METHOD,
    check_pte,
    decode_description,
)
from mobiledeploy.errors import ArtifactError, RuntimeFailedError, UsageError
from mobiledeploy.network import OUTPUT_NAME
from mobiledeploy.runtimes.native_output import captured_stderr
from mobiledeploy.runtimes.runner import in_batches_of, single_input
from mobiledeploy.utils.files import require_utf8

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from numpy.typing import NDArray


_FLOAT = 6  # executorch/runtime/core/portable_type/scalar_type.h


class ExecuTorchRunner:
    """A `.pte` file in ExecuTorch.

    The batch is fixed to what was exported, which is 1 throughout mobiledeploy. The thread pool
    belongs to the whole process, so all runners that are open at one time have the same number of
    threads.

    Args:
        path: The program.
        threads: Size of the process's thread pool.
        optimize: Must be True: a `.pte` was optimized when it was exported.

    Raises:
        ArtifactError: the file is not a program that ExecuTorch accepts, or its method "forward"
            does not take one float32 (N, C, H, W) and return one float32 (N, classes).
        RuntimeFailedError: another runner is open with another number of threads.
        UsageError: `optimize` is False, or the path is not UTF-8.
    """

    runtime = "executorch"
    version = version("executorch")

    def __init__(self, path: Path, *, threads: int = 1, optimize: bool = True) -> None:
        if not optimize:
            raise UsageError(f"{path}: a .pte has no optimizations that could be switched off.")
        self.path = path
        self.threads = threads
        require_utf8(path)
        check_pte(path)
        _set_threads(threads)
        # Methods point into the program: it must live as long as they do.
        self._program, self._method = _load(path)
        batch, *sample = self._input_sizes()
        self.batch_size: int = batch
        self.input_shape: tuple[int, ...] = tuple(sample)
        self.metadata, self.labels = decode_description(
            path, self._constant(METADATA_METHOD), self._constant(LABELS_METHOD)
        )
        _open.add(self)

    def _input_sizes(self) -> tuple[int, ...]:
        meta = self._method.method_meta()
        tensors = [meta.input_tensor_meta(i) for i in range(meta.num_inputs())]
        outputs = meta.num_outputs()
        images = [t for t in tensors if t.dtype() == _FLOAT and len(t.sizes()) == 4]
        if len(tensors) != 1 or not images or outputs != 1:
            raise ArtifactError(
                f"{self.path}: {METHOD!r} takes {tensors} and returns {outputs} values; "
                "expected one float32 (N, C, H, W) and one output.",
                remedy="Export the model with `mobiledeploy export`.",
            )
        return tuple(tensors[0].sizes())

    def _constant(self, name: str) -> bytes:
        """Return the uint8 that a constant method returns; empty where there is no such method."""
        names = [self._program.get_method_name(i) for i in range(self._program.num_methods())]
        if name not in names:
            return b""
        with captured_stderr():
            (value,) = self._program.load_method(name)(())
        return cast("bytes", value.numpy().tobytes())

    def run(self, inputs: Mapping[str, NDArray[np.float32]]) -> Mapping[str, NDArray[np.float32]]:
        """Run the network (see `Runner.run`)."""
        samples = single_input(inputs, self.input_shape)
        return {OUTPUT_NAME: in_batches_of(self.batch_size, samples, self._run_batch)}

    def _run_batch(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            # The method clones its outputs: they outlive the next run.
            (logits,) = self._method((torch.from_numpy(batch),))
        except RuntimeError as error:
            raise RuntimeFailedError(
                f"ExecuTorch failed while running {self.path}: {error}"
            ) from error
        return cast("NDArray[np.float32]", logits.numpy())

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


class SingleOperatorRunner:
    """One operator of a `.pte`, as a program of its own, with an input made of noise.

    Args:
        name: Of the operator.
        program: A `.pte` that holds it alone.
        inputs: Datatype and shape of each input.
        threads: Size of the process's thread pool.

    Raises:
        ArtifactError: ExecuTorch does not accept the program.
        RuntimeFailedError: a runner is open with another number of threads.
    """

    def __init__(
        self,
        name: str,
        program: bytes,
        inputs: Iterable[tuple[str, tuple[int, ...]]],
        *,
        threads: int,
    ) -> None:
        _set_threads(threads)
        self._buffer = program  # which the loaded program goes on reading
        self._program, self._method = _load(name, self._buffer)
        self._inputs = tuple(_noise(*given) for given in inputs)
        _open.add(self)

    def run(self) -> None:
        """Run the operator once; the outputs stay where they are."""
        self._method(self._inputs, False)


def _noise(datatype: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Return codes of every value, or normal floats.

    The memory goes on behind them, for XNNPACK reads in vectors.
    """
    random, count = np.random.default_rng(0), math.prod(shape)
    if datatype == "float32":
        values = random.standard_normal(count + _VECTOR, dtype=np.float32)
    else:
        info = np.iinfo(datatype)
        values = random.integers(info.min, info.max + 1, count + _VECTOR, dtype=datatype)
    return torch.from_numpy(values[:count].reshape(shape))


_VECTOR = 128


# Runners that hold on to the thread pool. Weak: one that was never closed must not count for ever.
_open: weakref.WeakSet[ExecuTorchRunner | SingleOperatorRunner] = weakref.WeakSet()


def _set_threads(threads: int) -> None:
    """Size the process's thread pool.

    Resetting it destroys the pool that XNNPACK's loaded networks point to, hence the check.
    """
    with captured_stderr():
        current = _portable_lib._threadpool_get_thread_count()  # noqa: SLF001 - the only access
        if current == threads:
            return
        if _open:
            raise RuntimeFailedError(
                f"ExecuTorch has one thread pool per process: {len(_open)} open runners use "
                f"{current} threads, another asked for {threads}.",
                remedy="Close the other runners first, or give all the same number of threads.",
            )
        _portable_lib._unsafe_reset_threadpool(threads)  # noqa: SLF001 - the only access


def _load(path: Path | str, buffer: bytes | None = None) -> tuple[Any, Any]:
    """Load and initialise the method; return it and the program that owns its memory.

    With a buffer, the program is read from there and `path` is only what errors call it.
    """
    verification = _portable_lib.Verification.InternalConsistency
    with captured_stderr() as log:
        try:
            program = (
                _portable_lib._load_program(  # noqa: SLF001 - see the import
                    str(path), program_verification=verification
                )
                if buffer is None
                else _portable_lib._load_program_from_buffer(  # noqa: SLF001
                    buffer, program_verification=verification
                )
            )
            return program, program.load_method(METHOD)
        except (RuntimeError, MemoryError) as error:
            failure = error
    detail = f" ({log.last_line})" if log.last_line else ""
    raise ArtifactError(
        f"ExecuTorch {version('executorch')} cannot load {path}: {failure}{detail}.",
        remedy="Export the model again: the file is damaged, or it needs operators or backends "
        "that this runtime does not have.",
    ) from failure
