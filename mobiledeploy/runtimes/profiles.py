"""Run an `.onnx` with ONNX Runtime's profiler to learn the types and shapes of its operators.

The operators are those of the graph that ONNX Runtime has optimized for this machine, in the order
in which they run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mobiledeploy.errors import ArtifactError
from mobiledeploy.runtimes.onnxruntime import ORT_ERRORS, load, session_options
from mobiledeploy.utils.files import temporary_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

# ONNX Runtime's names of types -> NumPy's names
_DATATYPES = {"float": "float32", "double": "float64"}
_NOISE: Mapping[str, Callable[[np.random.Generator, tuple[int, ...]], NDArray[Any]]] = {
    "tensor(float)": lambda random, shape: random.standard_normal(shape).astype(np.float32),
    "tensor(uint8)": lambda random, shape: random.integers(0, 256, shape, np.uint8),
}
_KERNEL = "_kernel_time"
_PROFILE_BYTES = 2_000_000  # room for the profile of one run


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfiledOperator:
    """One node of the optimized graph.

    Attributes:
        name: The node's name.
        kind: ONNX's or ONNX Runtime's name of the operator.
        reads: Datatype and shape of the inputs; packed weights may be missing.
        writes: Datatype and shape of the outputs.
    """

    name: str
    kind: str
    reads: tuple[tuple[str, tuple[int, ...]], ...]
    writes: tuple[tuple[str, tuple[int, ...]], ...]


def run_profiled(path: Path, inputs: Mapping[str, NDArray[Any]]) -> tuple[ProfiledOperator, ...]:
    """Run a model once on one batch; return its operators.

    Args:
        path: A `.onnx`.
        inputs: Arrays by the names of the inputs.

    Raises:
        ArtifactError: ONNX Runtime rejects the file, or fails while running it on its own shapes.
    """
    with temporary_folder(_PROFILE_BYTES) as folder:
        options = session_options(threads=1, optimize=True)
        options.enable_profiling = True
        options.profile_file_prefix = str(folder / "profile")
        session = load(path, options)
        try:
            session.run(None, dict(inputs))
        except ORT_ERRORS as error:
            raise ArtifactError(
                f"ONNX Runtime failed while running {path}: {error}",
                remedy="Export the model again: the file is damaged, or needs another runtime.",
            ) from error
        events = json.loads(Path(session.end_profiling()).read_text(errors="replace"))
    return tuple(
        ProfiledOperator(
            name=event["name"].removesuffix(_KERNEL),
            kind=event["args"]["op_name"],
            reads=_tensors(event["args"]["input_type_shape"]),
            writes=_tensors(event["args"]["output_type_shape"]),
        )
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL)
    )


def example_inputs(path: Path, generator: np.random.Generator) -> dict[str, NDArray[Any]] | None:
    """Return noise for each input, a batch of one: normally distributed, or pixels.

    Returns:
        None if an input is neither float32 nor uint8, or its size is not fixed.

    Raises:
        ArtifactError: ONNX Runtime rejects the file.
    """
    session = load(path, session_options(threads=1, optimize=False))
    inputs = {}
    for tensor in session.get_inputs():
        first, *rest = tensor.shape
        if tensor.type not in _NOISE or not all(isinstance(size, int) for size in rest):
            return None
        shape = (first if isinstance(first, int) else 1, *rest)
        inputs[tensor.name] = _NOISE[tensor.type](generator, shape)
    return inputs


def _tensors(described: list[dict[str, list[int]]]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple(
        (_DATATYPES.get(name, name), tuple(shape))
        for tensor in described
        for name, shape in tensor.items()
    )
