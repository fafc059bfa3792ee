"""A runner each for ONNX Runtime and ExecuTorch, with nothing of mobiledeploy's around it."""

from __future__ import annotations

import importlib.metadata
import json
import os
from typing import TYPE_CHECKING, Any

from mobiledeploy.devices.agent.errors import SETUP_REMEDY, RefusalError
from mobiledeploy.devices.agent.machine import sums_saturate

if TYPE_CHECKING:
    from collections.abc import Callable


def open_runner(artifact: dict[str, Any], folder: str, threads: int) -> Runner:
    """Load an artifact into the runtime that its suffix asks for."""
    path = os.path.join(folder, artifact["file"])
    return runner_type(artifact)(path, artifact["label"], threads)


def runner_type(artifact: dict[str, Any]) -> type[Runner]:
    """Import the runtime that an artifact's suffix asks for."""
    name, runner, imports = _RUNNERS[os.path.splitext(artifact["file"])[1]]
    try:
        imports()
    except ImportError as error:
        raise RefusalError(
            "RuntimeFailedError",
            f"{artifact['label']} needs {name}, which cannot be imported over there: {error}.",
            SETUP_REMEDY,
        ) from error
    return runner


class Runner:
    """A loaded network with one input and one output.

    Attributes:
        runtime: Name and version.
        batch_size: Samples per inference; 1 where any number will do.
        input_shape: Of one sample, (C, H, W).
    """

    runtime: str
    batch_size: int
    input_shape: tuple[int, ...]

    def __init__(self, path: str, label: str, threads: int) -> None:
        raise NotImplementedError

    def run(self, batch: Any) -> Any:
        """Return the output for one batch."""
        raise NotImplementedError


class OnnxRuntime(Runner):
    """An `.onnx` file in ONNX Runtime, on the CPU."""

    def __init__(self, path: str, label: str, threads: int) -> None:
        import onnxruntime

        options = self._options(path, threads)
        self._label = label
        self.runtime = f"onnxruntime {onnxruntime.__version__}"
        try:
            self._session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise RefusalError(
                "ArtifactError",
                f"ONNX Runtime {onnxruntime.__version__} cannot load {label}: {error}",
                "Export the model again: the file is damaged, not ONNX, or newer than the runtime.",
            ) from error
        ins, outs = self._session.get_inputs(), self._session.get_outputs()
        if len(ins) != 1 or len(outs) != 1:
            raise RefusalError(
                "ArtifactError",
                f"{label} has {len(ins)} inputs and {len(outs)} outputs; expected one of each.",
                "Export the model with `mobiledeploy export`.",
            )
        self._input, self._output = ins[0].name, outs[0].name
        batch, *sample = ins[0].shape
        self.input_shape = tuple(sample)
        self.batch_size = batch if isinstance(batch, int) else 1
        if not all(isinstance(size, int) for size in self.input_shape):
            raise RefusalError(
                "ArtifactError",
                f"{label} takes images of any size: there is no one latency to measure.",
                "Export it with a fixed resolution.",
            )

    def _options(self, path: str, threads: int) -> Any:  # noqa: ARG002 - for a profiler
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # Workers that spin on after an inference would take the next runner's CPU time.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if sums_saturate():
            options.add_session_config_entry("session.x64quantprecision", "1")
        return options

    def run(self, batch: Any) -> Any:
        """Return the output for one batch."""
        try:
            return self._session.run([self._output], {self._input: batch})[0]
        except Exception as error:
            raise RefusalError(
                "RuntimeFailedError", f"ONNX Runtime failed while running {self._label}: {error}"
            ) from error


class ProfiledOnnxRuntime(OnnxRuntime):
    """The same, with ONNX Runtime's profiler on."""

    def _options(self, path: str, threads: int) -> Any:
        options = super()._options(path, threads)
        options.enable_profiling = True
        options.profile_file_prefix = path + ".profile"
        return options

    def events(self) -> Any:
        """End the profile; return its events."""
        with open(self._session.end_profiling(), encoding="utf-8") as file:
            return json.load(file)


class ExecuTorch(Runner):
    """The method "forward" of a `.pte` file in ExecuTorch."""

    def __init__(self, path: str, label: str, threads: int) -> None:
        import torch
        from executorch.extension.pybindings import _portable_lib

        self._label = label
        self.runtime = f"executorch {importlib.metadata.version('executorch')}"
        self._from_numpy = torch.from_numpy
        if _portable_lib._threadpool_get_thread_count() != threads:
            _portable_lib._unsafe_reset_threadpool(threads)
        try:
            # Methods point into the program: it must live as long as they do.
            self._program = _portable_lib._load_program(
                path, program_verification=_portable_lib.Verification.InternalConsistency
            )
            self._method = self._program.load_method("forward")
            sizes = self._method.method_meta().input_tensor_meta(0).sizes()
        except (RuntimeError, MemoryError) as error:
            raise RefusalError(
                "ArtifactError",
                f"{self.runtime} cannot load {label}: {error}.",
                "Export the model again: the file is damaged, or it needs operators or backends "
                "that this runtime does not have.",
            ) from error
        self.batch_size, self.input_shape = sizes[0], tuple(sizes[1:])

    def run(self, batch: Any) -> Any:
        """Return the output for one batch."""
        try:
            return self._method((self._from_numpy(batch),))[0].numpy()
        except RuntimeError as error:
            raise RefusalError(
                "RuntimeFailedError", f"ExecuTorch failed while running {self._label}: {error}"
            ) from error


class OperatorProgram(ExecuTorch):
    """A program of one operator; its inputs are noise.

    Args:
        inputs: Datatype and shape of each.
    """

    def __init__(
        self, path: str, label: str, threads: int, inputs: list[tuple[str, list[int]]]
    ) -> None:
        super().__init__(path, label, threads)
        self._inputs = tuple(self._from_numpy(_noise(*given)) for given in inputs)

    def run_alone(self) -> None:
        """Run the operator; the outputs stay where they are."""
        self._method(self._inputs, False)


def _noise(datatype: str, shape: list[int]) -> Any:
    """Return codes of every value, or normal floats."""
    import numpy as np

    random = np.random.default_rng(0)
    if datatype == "float32":
        return random.standard_normal(shape, dtype=np.float32)
    info = np.iinfo(datatype)
    return random.integers(info.min, info.max + 1, shape, dtype=datatype)


def _import_onnxruntime() -> None:
    import onnxruntime  # noqa: F401


def _import_executorch() -> None:
    import torch  # noqa: F401 - its libraries must be in the process first
    from executorch.extension.pybindings import _portable_lib  # noqa: F401


_RUNNERS: dict[str, tuple[str, type[Runner], Callable[[], None]]] = {
    ".onnx": ("onnxruntime", OnnxRuntime, _import_onnxruntime),
    ".pte": ("executorch", ExecuTorch, _import_executorch),
}
