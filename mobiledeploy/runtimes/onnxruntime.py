"""ONNX Runtime on this machine's CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from mobiledeploy.artifact.artifact import damage_explained
from mobiledeploy.artifact.metadata import decode, metadata_errors_explained, output_names
from mobiledeploy.devices.agent.machine import products_saturate
from mobiledeploy.errors import ArtifactError, RuntimeFailedError
from mobiledeploy.network import INPUT_NAME
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

METADATA_KEY = "mobiledeploy.metadata"
LABELS_KEY = "mobiledeploy.labels"
_FATAL = 4
ORT_ERRORS = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.NoSuchFile,
    ort_errors.NoModel,
    ort_errors.EngineError,
    ort_errors.RuntimeException,
    ort_errors.InvalidProtobuf,
    ort_errors.NotImplemented,
    ort_errors.InvalidGraph,
    ort_errors.EPFail,
    RuntimeError,
    ValueError,
)


class OnnxRuntimeRunner:
    """An `.onnx` file in ONNX Runtime, on the CPU.

    Args:
        path: The model.
        threads: Threads within an operator; operators run one after the other.
        optimize: False switches all graph optimizations off, so that the graph runs as written: in
            float around the quantized values.

    Raises:
        ArtifactError: ONNX Runtime rejects the file, or its inputs and outputs are not one "input"
            and those that its metadata name.
    """

    runtime = "onnxruntime"
    version = str(onnxruntime.__version__)
    thread_safe = True

    def __init__(self, path: Path, *, threads: int = 1, optimize: bool = True) -> None:
        self.path = path
        self.threads = threads
        self._session = load(path, session_options(threads=threads, optimize=optimize))
        with damage_explained(path):
            self._outputs = [output.name for output in self._session.get_outputs()]
            self.input_shape, self.batch_size = self._signature()
            given = self._session.get_inputs()[0].type
            self.input_type = "uint8" if given == "tensor(uint8)" else "float32"
            properties = self._session.get_modelmeta().custom_metadata_map
            self.metadata, self.labels = read_metadata(path, properties)
        expected = list(output_names(self.metadata))
        if self._outputs != expected:
            raise ArtifactError(
                f"{path} has outputs {self._outputs}; expected {expected}.",
                remedy="Export the model with `mobiledeploy export`.",
            )

    def _signature(self) -> tuple[tuple[int, ...] | None, int | None]:
        """Return the shape of one sample and the fixed batch; None where they are symbolic."""
        inputs = [i.name for i in self._session.get_inputs()]
        if inputs != [INPUT_NAME]:
            raise ArtifactError(
                f"{self.path} has inputs {inputs}; expected one {INPUT_NAME!r}.",
                remedy="Export the model with `mobiledeploy export`.",
            )
        batch, *sample = self._session.get_inputs()[0].shape
        if any(isinstance(size, int) and size < 1 for size in (batch, *sample)):
            raise ValueError(f"its input has the shape {[batch, *sample]}")
        fixed = all(isinstance(size, int) for size in sample)
        return (tuple(sample) if fixed else None, batch if isinstance(batch, int) else None)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[np.float32]]:
        """Run the network (see `Runner.run`)."""
        samples = single_input(inputs, self.input_shape, self.input_type)
        if self.batch_size is None:
            return as_values(self._run_batch(samples), self.metadata)
        outputs = in_batches_of(self.batch_size, samples, self._run_batch)
        return as_values(outputs, self.metadata)

    def _run_batch(self, batch: NDArray[Any]) -> list[NDArray[np.float32]]:
        try:
            outputs = self._session.run(self._outputs, {INPUT_NAME: batch})
        except ORT_ERRORS as error:
            raise RuntimeFailedError(
                f"ONNX Runtime failed while running {self.path}: {error}",
                remedy="Export the model again, or update ONNX Runtime.",
            ) from error
        return cast("list[NDArray[np.float32]]", outputs)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Free the session."""
        del self._session


def save_optimized(path: Path, target: Path, *, optimize: bool = True) -> None:
    """Save the graph that ONNX Runtime runs on this machine.

    Raises:
        ArtifactError: ONNX Runtime rejects the file.
    """
    options = session_options(threads=1, optimize=optimize)
    options.optimized_model_filepath = str(target)
    load(path, options)


def read_metadata(
    path: Path, properties: Mapping[str, str]
) -> tuple[dict[str, object], tuple[str, ...]]:
    """Return the metadata and the class names that mobiledeploy wrote into `metadata_props`.

    Raises:
        ArtifactError: The metadata is damaged.
    """
    with metadata_errors_explained(path):
        document = decode(properties.get(METADATA_KEY, "{}"))
    return document, tuple(properties.get(LABELS_KEY, "").splitlines())


def session_options(*, threads: int, optimize: bool) -> onnxruntime.SessionOptions:
    """Return the options of every session: operators run one after another, on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _FATAL
    # Workers that keep spinning after an inference would take CPU time from the next runner.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if products_saturate():  # exact but slower kernels, which VNNI does not need
        options.add_session_config_entry("session.x64quantprecision", "1")
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def open_session(
    model: bytes, path: Path, *, threads: int, optimize: bool
) -> onnxruntime.InferenceSession:
    """Open a session for a model in memory; `path` is its name in errors.

    Raises:
        ArtifactError: ONNX Runtime rejects the model.
    """
    return load(path, session_options(threads=threads, optimize=optimize), model)


def load(
    path: Path, options: onnxruntime.SessionOptions, model: bytes | None = None
) -> onnxruntime.InferenceSession:
    """Load a model from its file or from memory; `path` is its name in errors.

    Raises:
        ArtifactError: ONNX Runtime rejects the model.
        UsageError: The path is not UTF-8.
    """
    if model is None:
        require_utf8(path)
    with captured_stderr():
        try:
            return onnxruntime.InferenceSession(
                str(path) if model is None else model,
                options,
                providers=["CPUExecutionProvider"],
                enable_fallback=0,  # it would print, and try the same provider again
            )
        except ORT_ERRORS as error:
            raise ArtifactError(
                f"ONNX Runtime {onnxruntime.__version__} cannot load {path}: {error}",
                remedy="Export the model again: the file is damaged or not ONNX.",
            ) from error
