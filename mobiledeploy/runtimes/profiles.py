"""Run an `.onnx` with ONNX Runtime's profiler: each operator with its times, types and shapes.

In: a model and one batch. Out: one `ProfiledOperator` per node of the graph that ONNX Runtime made
of it for this machine, in the order in which they run.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobiledeploy.errors import RuntimeFailedError
from mobiledeploy.runtimes.onnxruntime import ORT_ERRORS, load, session_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import numpy as np
    from numpy.typing import NDArray

# ONNX Runtime's names of types -> numpy's
_DATATYPES = {"float": "float32", "double": "float64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfiledOperator:
    """One node.

    Attributes:
        name: Of the node.
        kind: ONNX's or ONNX Runtime's name of the operator.
        reads: (datatype, shape) of each input that was given; weights may be missing, because ONNX
            Runtime keeps them in a form of its own.
        writes: (datatype, shape) of the outputs.
        times_us: One per run.
    """

    name: str
    kind: str
    reads: tuple[tuple[str, tuple[int, ...]], ...]
    writes: tuple[tuple[str, tuple[int, ...]], ...]
    times_us: tuple[float, ...]


def run_profiled(
    path: Path,
    inputs: Mapping[str, NDArray[Any]],
    *,
    runs: int,
    threads: int = 1,
    before_each: Callable[[], None] | None = None,
) -> tuple[ProfiledOperator, ...]:
    """Run a model on one batch, `runs` times.

    Args:
        path: A `.onnx`.
        inputs: By name.
        runs: How many.
        threads: That compute one inference.
        before_each: What else to do before each run. The run is then repeated and the repetition
            counts, which finds the weights in the cache again.

    Raises:
        ArtifactError: ONNX Runtime does not accept the file.
        RuntimeFailedError: it failed while running it.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = session_options(threads=threads, optimize=True)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = load(path, options)
        try:
            for _ in range(runs):
                if before_each is not None:
                    before_each()
                    session.run(None, dict(inputs))
                session.run(None, dict(inputs))
        except ORT_ERRORS as error:
            raise RuntimeFailedError(
                f"ONNX Runtime failed while running {path}: {error}"
            ) from error
        events = json.loads(Path(session.end_profiling()).read_text())
    nodes = (event for event in events if event.get("cat") == "Node")
    operators = _operators(nodes, every=1 if before_each is None else 2)
    if any(len(operator.times_us) < runs for operator in operators):
        raise RuntimeFailedError(
            f"ONNX Runtime's profile of {path} does not hold all {runs} runs.",
            remedy="It has room for a million events: ask for fewer --runs.",
        )
    return operators


def example_inputs(path: Path, generator: np.random.Generator) -> dict[str, NDArray[Any]] | None:
    """Return normal noise for each input, a batch of one; None where a size is not fixed.

    Raises:
        ArtifactError: ONNX Runtime does not accept the file.
    """
    session = load(path, session_options(threads=1, optimize=False))
    inputs = {}
    for given in session.get_inputs():
        first, *rest = given.shape
        if given.type != "tensor(float)" or not all(isinstance(size, int) for size in rest):
            return None
        shape = (first if isinstance(first, int) else 1, *rest)
        inputs[given.name] = generator.standard_normal(shape).astype("float32")
    return inputs


def _operators(events: Iterable[dict[str, Any]], every: int) -> tuple[ProfiledOperator, ...]:
    """Group the events of each node and keep the last of `every` so many.

    Other events than kernels' (fences) are left out.
    """
    by_node: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        if event["name"].endswith("_kernel_time"):
            by_node.setdefault(event["args"]["node_index"], []).append(event)
    return tuple(
        ProfiledOperator(
            name=group[0]["name"].removesuffix("_kernel_time"),
            kind=group[0]["args"]["op_name"],
            reads=_tensors(group[0]["args"]["input_type_shape"]),
            writes=_tensors(group[0]["args"]["output_type_shape"]),
            times_us=tuple(float(event["dur"]) for event in group[every - 1 :: every]),
        )
        for group in by_node.values()
    )


def _tensors(described: list[dict[str, list[int]]]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple(
        (_DATATYPES.get(name, name), tuple(shape))
        for tensor in described
        for name, shape in tensor.items()
    )
