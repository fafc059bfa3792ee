"""What a device is asked for, and the files that go with it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mobiledeploy.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    Samples = NDArray[np.float32]
    Message = Mapping[str, Any]

Task = Literal["bench", "instructions", "outputs", "profile"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorProgram:
    """A `.pte` of one operator.

    Attributes:
        label: What errors call it.
        data: The file.
        inputs: (numpy datatype, shape) of what it takes.
    """

    label: str
    data: bytes
    inputs: tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One session on a device.

    Attributes:
        task: "bench" times the artifacts, "instructions" counts those of one artifact, "profile"
            times the operators of one, "outputs" only runs them.
        artifacts: Paths on this machine.
        inputs: Samples for each artifact, (N, C, H, W) float32; None: noise that the device makes.
            The first batch of them is timed or counted; all of them are run at the end.
        threads: Threads that compute one inference.
        affinity: Cores to be bound to; empty for all.
        rounds: How many inferences are timed or counted.
        warmup: How many come before these.
        seed: Of `bench`: of the order within the rounds.
        duration_s: Of `bench`: time for so long, in place of `rounds`.
        operators: Of `profile`: those of a `.pte`, as programs of their own.
    """

    task: Task
    artifacts: tuple[Path, ...]
    inputs: tuple[Samples | None, ...]
    threads: int = 1
    affinity: tuple[int, ...] = ()
    rounds: int = 0
    warmup: int = 0
    seed: int = 0
    duration_s: float | None = None
    operators: tuple[OperatorProgram, ...] = ()


def files_of(request: Request) -> dict[str, bytes]:
    """Return the files that a request needs over there, by the name that they get there.

    Each artifact lies in a folder of its own with its own name, for the sake of the file of weights
    that an ONNX model may have beside it and names by its name.

    Raises:
        ArtifactError: a file cannot be read.
    """
    files: dict[str, bytes] = {}
    for place, (path, samples) in enumerate(zip(request.artifacts, request.inputs, strict=True)):
        for part in _parts_of(path):
            try:
                files[f"{place}/{part.name}"] = part.read_bytes()
            except OSError as error:
                raise ArtifactError(
                    f"Could not read {part}: {error.strerror}.",
                    remedy="Check the path, or make the artifact with `mobiledeploy export`.",
                ) from error
        if samples is not None:
            files[inputs_name(place)] = as_npy(samples)
    return files | {
        operator_name(place): operator.data for place, operator in enumerate(request.operators)
    }


def operator_name(place: int) -> str:
    """Return what a program of one operator is called over there."""
    return f"operators/{place}.pte"


def inputs_name(place: int) -> str:
    """Return what the inputs of an artifact are called over there."""
    return f"{place}/inputs.npy"


def as_npy(array: Samples) -> bytes:
    """Return the bytes of a `.npy` file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def from_npy(data: bytes) -> Samples:
    """Read a `.npy` file; it may hold numbers only."""
    array: Samples = np.load(io.BytesIO(data), allow_pickle=False)
    return array


def _parts_of(path: Path) -> Iterator[Path]:
    yield path
    weights = path.with_name(path.name + ".data")
    if path.suffix == ".onnx" and weights.is_file():
        yield weights
