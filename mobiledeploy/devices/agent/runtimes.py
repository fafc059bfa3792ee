"""Runners for ONNX Runtime, ExecuTorch and LiteRT that need no other part of mobiledeploy."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import math
import os
from typing import TYPE_CHECKING, Any

from mobiledeploy.devices.agent.errors import SETUP_REMEDY, AgentError
from mobiledeploy.devices.agent.machine import products_saturate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mobiledeploy.devices.request import ArtifactEntry


def open_runner(artifact: ArtifactEntry, folder: str, threads: int) -> Runner:
    """Load an artifact into the runtime for its suffix.

    Raises:
        AgentError: The runtime is not installed, or it rejects the artifact.
    """
    path = os.path.join(folder, artifact["file"])
    return runner_type(artifact)(path, artifact["label"], threads)


def runner_type(artifact: ArtifactEntry) -> type[Runner]:
    """Import the runtime for an artifact's suffix.

    Raises:
        AgentError: It is not installed, or there is none.
    """
    suffix = os.path.splitext(artifact["file"])[1]
    if suffix not in _RUNNERS:
        raise AgentError(
            "UsageError",
            f"{artifact['label']} is a {suffix} file; expected {', '.join(_RUNNERS)}.",
            "Export the model with `mobiledeploy export`.",
        )
    name, runner, imports = _RUNNERS[suffix]
    try:
        imports()
    except ImportError as error:
        raise AgentError(
            "RuntimeFailedError",
            f"{artifact['label']} needs {name}, which cannot be imported on the device: {error}.",
            SETUP_REMEDY,
        ) from error
    return runner


class Runner:
    """A loaded network with one input.

    Attributes:
        runtime: Name and version.
        batch_size: Samples per inference; 1 if the batch is symbolic.
        input_shape: Shape of one sample, (C, H, W), or (H, W, C) of pixels.
        input_type: "float32", or "uint8" for pixels.

    Args:
        path: The artifact's file.
        label: Its name in errors.
        threads: Threads that compute one inference.

    Raises:
        AgentError: The runtime rejects the artifact.
    """

    runtime: str
    batch_size: int
    input_shape: tuple[int, ...]
    input_type: str

    def __init__(self, path: str, label: str, threads: int) -> None:
        raise NotImplementedError

    def run(self, batch: Any) -> Any:
        """Return the outputs for one batch: a list of arrays, (batch_size, ...) each."""
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
            raise AgentError(
                "ArtifactError",
                f"ONNX Runtime {onnxruntime.__version__} cannot load {label}: {error}",
                "Export the model again: the file is damaged, not ONNX, or newer than the runtime.",
            ) from error
        ins, outs = self._session.get_inputs(), self._session.get_outputs()
        if len(ins) != 1 or not outs:
            raise AgentError(
                "ArtifactError",
                f"{label} has {len(ins)} inputs and {len(outs)} outputs; expected one input.",
                "Export the model with `mobiledeploy export`.",
            )
        self._input, self._outputs = ins[0].name, [each.name for each in outs]
        self.input_type = "uint8" if ins[0].type == "tensor(uint8)" else "float32"
        batch, *sample = ins[0].shape
        self.input_shape = tuple(sample)
        self.batch_size = batch if isinstance(batch, int) else 1
        if not all(isinstance(size, int) for size in self.input_shape):
            raise AgentError(
                "ArtifactError",
                f"{label} has no fixed input size, so it has no one latency.",
                "Export it with a fixed resolution.",
            )

    def _options(self, path: str, threads: int) -> Any:  # noqa: ARG002 - the profiled subclass uses it
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # Workers that keep spinning after an inference would take CPU time from the next runner.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if products_saturate():
            options.add_session_config_entry("session.x64quantprecision", "1")
        return options

    def run(self, batch: Any) -> Any:
        """Return the outputs for one batch."""
        try:
            return self._session.run(self._outputs, {self._input: batch})
        except Exception as error:
            raise AgentError(
                "RuntimeFailedError",
                f"ONNX Runtime failed while running {self._label}: {error}",
                "Export the model again, or update ONNX Runtime on the device.",
            ) from error


def _planes(output: Any) -> Any:
    """Return an output of LiteRT with the channels of images in front."""
    return output.transpose(0, 3, 1, 2) if output.ndim == 4 else output


class ProfiledOnnxRuntime(OnnxRuntime):
    """The same, with ONNX Runtime's profiler."""

    def _options(self, path: str, threads: int) -> Any:
        options = super()._options(path, threads)
        options.enable_profiling = True
        options.profile_file_prefix = path + ".profile"
        return options

    def events(self) -> Any:
        """End the profile and return its events."""
        with open(self._session.end_profiling(), encoding="utf-8") as file:
            return json.load(file)


# executorch/runtime/core/portable_type/scalar_type.h
_DATATYPES = {0: "uint8", 1: "int8", 6: "float32"}


class ExecuTorch(Runner):
    """The method "forward" of a `.pte` file in ExecuTorch."""

    def __init__(self, path: str, label: str, threads: int) -> None:
        import torch

        bindings = executorch_bindings()
        self._label = label
        self.runtime = f"executorch {importlib.metadata.version('executorch')}"
        self._from_numpy = torch.from_numpy
        if bindings._threadpool_get_thread_count() != threads:
            bindings._unsafe_reset_threadpool(threads)
        try:
            # The method points into the program, which must outlive it.
            self._program = bindings._load_program(
                path, program_verification=bindings.Verification.InternalConsistency
            )
            self._method = self._program.load_method("forward")
            given = self._method.method_meta().input_tensor_meta(0)
            sizes = given.sizes()
        except Exception as error:
            raise AgentError(
                "ArtifactError",
                f"{self.runtime} cannot load {label}: {error}.",
                "Export the model again: the file is damaged, or it needs operators or backends "
                "that this runtime does not have.",
            ) from error
        self.batch_size, self.input_shape = sizes[0], tuple(sizes[1:])
        self.input_type = "uint8" if _DATATYPES.get(given.dtype()) == "uint8" else "float32"

    def run(self, batch: Any) -> Any:
        """Return the outputs for one batch."""
        try:
            return [each.numpy() for each in self._method((self._from_numpy(batch),))]
        except Exception as error:
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> AgentError:
        return AgentError(
            "RuntimeFailedError",
            f"ExecuTorch failed while running {self._label}: {error}",
            "Export the model again, or update ExecuTorch on the device.",
        )


class LiteRT(Runner):
    """A `.tflite` file in LiteRT, with XNNPACK; it reads images as (H, W, C)."""

    def __init__(self, path: str, label: str, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._label = label
        self.runtime = f"litert {importlib.metadata.version('ai-edge-litert')}"
        try:
            self._interpreter = Interpreter(model_path=path, num_threads=threads)
            self._interpreter.allocate_tensors()
            (given,) = self._interpreter.get_input_details()
            results = self._interpreter.get_output_details()
            batch, height, width, channels = (int(size) for size in given["shape"])
        except Exception as error:
            raise AgentError(
                "ArtifactError",
                f"{self.runtime} cannot load {label}: {error}.",
                "Export the model again: the file is damaged, or it needs operators that this"
                " runtime does not have.",
            ) from error
        self._input, self._outputs = given["index"], [each["index"] for each in results]
        self.input_type = given["dtype"].__name__
        is_pixels = self.input_type == "uint8"
        self.batch_size = batch
        self.input_shape = (height, width, channels) if is_pixels else (channels, height, width)

    def run(self, batch: Any) -> Any:
        """Return the outputs for one batch."""
        import numpy as np

        try:
            is_pixels = self.input_type == "uint8"
            images = batch if is_pixels else np.ascontiguousarray(batch.transpose(0, 2, 3, 1))
            self._interpreter.set_tensor(self._input, images)
            self._interpreter.invoke()
            return [_planes(self._interpreter.get_tensor(number)) for number in self._outputs]
        except Exception as error:
            raise AgentError(
                "RuntimeFailedError",
                f"LiteRT failed while running {self._label}: {error}",
                "Export the model again, or update LiteRT on the device.",
            ) from error


class OperatorProgram(ExecuTorch):
    """A program of one operator, with noise as its inputs.

    Args:
        path: Of a `.pte` with that operator alone.
        label: The operator's name in errors.
        threads: Threads that compute it.
        inputs: Datatype and shape of each input.

    Raises:
        AgentError: The runtime rejects the program, or it takes other inputs.
    """

    def __init__(
        self, path: str, label: str, threads: int, inputs: Sequence[tuple[str, Sequence[int]]]
    ) -> None:
        super().__init__(path, label, threads)
        self._require(inputs)
        self._inputs = tuple(self._from_numpy(_noise(*given)) for given in inputs)

    def run_operator(self) -> None:
        """Run the operator; its outputs are not copied.

        Raises:
            AgentError: It fails.
        """
        try:
            self._method(self._inputs, False)
        except Exception as error:
            raise self._failure(error) from error

    def _require(self, inputs: Sequence[tuple[str, Sequence[int]]]) -> None:
        """Raise unless the program takes these inputs."""
        meta = self._method.method_meta()
        taken = [meta.input_tensor_meta(index) for index in range(meta.num_inputs())]
        found = [(_DATATYPES.get(each.dtype()), tuple(each.sizes())) for each in taken]
        expected = [(datatype, tuple(shape)) for datatype, shape in inputs]
        if found != expected:
            raise AgentError(
                "ArtifactError",
                f"The program of {self._label} takes {found}; the request has {expected!s:.200}.",
                "Run the command again.",
            )


_PADDING = 128  # values that XNNPACK may read behind a tensor, because it reads whole vectors


def _noise(datatype: str, shape: Sequence[int]) -> Any:
    """Return integers over the whole range of their type, or normally distributed floats."""
    import numpy as np

    random, count = np.random.default_rng(0), math.prod(shape)
    if datatype == "float32":
        values = random.standard_normal(count + _PADDING, dtype=np.float32)
    else:
        info = np.iinfo(datatype)
        values = random.integers(info.min, info.max + 1, count + _PADDING, dtype=datatype)
    return values[:count].reshape(shape)


def _import_onnxruntime() -> None:
    import onnxruntime  # noqa: F401


def _import_litert() -> None:
    import ai_edge_litert.interpreter  # noqa: F401


def executorch_bindings() -> Any:
    """Import the extension module that `executorch.runtime` wraps: `_C` since ExecuTorch 1.5.

    Importing the wrapper would also import the exporter, which takes 3 of 4 seconds, and the
    wrapper gives no access to the thread pool.

    Raises:
        ImportError: ExecuTorch is not installed.
    """
    import torch  # noqa: F401 - its libraries must be in the process first

    package = "executorch.extension.pybindings"
    is_new = importlib.util.find_spec(f"{package}._C") is not None
    return importlib.import_module(f"{package}.{'_C' if is_new else '_portable_lib'}")


_RUNNERS: dict[str, tuple[str, type[Runner], Callable[[], object]]] = {
    ".onnx": ("onnxruntime", OnnxRuntime, _import_onnxruntime),
    ".pte": ("executorch", ExecuTorch, executorch_bindings),
    ".tflite": ("ai-edge-litert", LiteRT, _import_litert),
}
