"""What a device is asked to do, and the messages that the two sides exchange.

`Request` is this side's view; `request_message` and `request_files` turn it into what is sent. The
TypedDicts describe the JSON of the protocol, which `mobiledeploy.devices.agent` documents.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field
from typing_extensions import TypedDict  # pydantic checks no others before Python 3.12

from mobiledeploy.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    Samples = NDArray[np.float32]
    Outputs = tuple[NDArray[Any], ...]  # of one artifact, (N, ...) each

Task = Literal["bench", "instructions", "outputs", "profile", "load"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorProgram:
    """A `.pte` that holds one operator.

    Attributes:
        label: The operator's name in error messages.
        data: The bytes of the `.pte`.
        inputs: NumPy datatype and shape of each input.
    """

    label: str
    data: bytes
    inputs: tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What one session on a device does.

    Attributes:
        task: "bench" times the artifacts, "instructions" counts the instructions of one artifact,
            "profile" times the operators of one artifact, "outputs" only runs the artifacts, "load"
            loads the runtimes of the native runner.
        artifacts: Paths on this machine.
        inputs: Samples for each artifact, (N, C, H, W) float32 or (N, H, W, C) uint8; None for
            noise that the device generates. Timing and counting use the first batch; all batches
            are run at the end.
        threads: Threads that compute one inference.
        affinity: Cores that the process is bound to; empty for all.
        rounds: Inferences to time or count.
        warmup: Inferences that run before these.
        seed: Seed of the order within the rounds of "bench".
        duration_s: How long "bench" times, in place of `rounds`.
        operators: For "profile" of a `.pte`: its operators as programs of their own.
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


class ArtifactEntry(TypedDict):
    """An artifact of a request: its file, its name in errors, and the file of its inputs."""

    file: str
    label: str
    inputs: str | None


class OperatorEntry(TypedDict):
    """A program of one operator: its file, its name in errors, and its inputs."""

    file: str
    label: str
    inputs: Sequence[tuple[str, Sequence[int]]]


class FileEntry(TypedDict):
    """A file whose bytes follow the request."""

    name: str
    size: int
    sha256: str


class RequestMessage(TypedDict):
    """The JSON line that starts a session. `limit_s` bounds how long the task may take."""

    task: Task
    artifacts: list[ArtifactEntry]
    threads: int
    affinity: Sequence[int]
    rounds: int
    warmup: int
    seed: int
    duration_s: float | None
    operators: list[OperatorEntry]
    limit_s: float
    files: list[FileEntry]


class Conditions(TypedDict):
    """What a processor's speed depends on; None where the system does not report it."""

    temperature_c: float | None
    frequency_mhz: float | None
    max_frequency_mhz: float | None
    governor: str | None
    throttle_count: int | None
    throttled_now: int | None


class MachineReport(TypedDict):
    """How a machine describes itself (`agent.machine.describe`)."""

    protocol: int
    system: str
    architecture: str
    os: str
    python: str
    executable: str
    cores: int
    core_mhz: dict[str, float]
    processor: str
    hwcap: list[int] | None
    runtimes: dict[str, str | None]
    conditions: Conditions


class FreshRun(TypedDict):
    """Loading and first inference of the first artifact of a process."""

    runtime: str
    load_ms: float
    first_ms: float
    peak_memory_bytes: int | None


class SessionConditions(TypedDict):
    """The conditions before and after a session's rounds."""

    before: Conditions
    after: Conditions


class OperatorTimes(TypedDict, total=False):
    """The times of one operator, one per round; name and kind only where the runtime has them."""

    name: str
    kind: str
    times_us: list[float]


class Result(TypedDict, total=False):
    """What a task returns.

    Each task sets its own fields:

    - "bench": fresh, times_ms [artifact][round], conditions, outputs;
    - "instructions": runtime, instructions [round], outputs;
    - "profile": runtime, whole_us [round], operators;
    - "outputs": inputs (None for samples that were sent), outputs;
    - "load": runtimes.

    `inputs` and `outputs` have one entry per artifact: a `.npy` file in base64, and a list of them
    with each output, (N, ...), in the network's order and in its own type.
    """

    fresh: FreshRun
    times_ms: list[list[float]]
    conditions: SessionConditions
    runtime: str
    instructions: list[int]
    whole_us: list[float]
    operators: list[OperatorTimes]
    inputs: list[str | None]
    outputs: list[list[str] | None]
    runtimes: list[str]


class ErrorReport(TypedDict):
    """An error that this side raises; `type` is the name of a class of `mobiledeploy.errors`."""

    type: str
    message: str
    remedy: str


class Death(TypedDict):
    """How the process that ran the artifacts ended without a result."""

    how: str


class Message(TypedDict, total=False):
    """A message of the agent: exactly one of these keys."""

    hello: MachineReport
    loading: str
    progress: Annotated[float, Field(ge=0, le=1)]
    result: Result
    error: ErrorReport
    died: Death


def request_message(
    request: Request, files: Mapping[str, bytes], *, limit_s: float
) -> RequestMessage:
    """Return the JSON line for a request.

    Args:
        request: What to do.
        files: From `request_files`.
        limit_s: How long the task may take on the device.
    """
    return {
        "task": request.task,
        "artifacts": [
            {
                "file": artifact_file(index, path),
                "label": str(path),
                "inputs": None if samples is None else inputs_file(index),
            }
            for index, (path, samples) in enumerate(
                zip(request.artifacts, request.inputs, strict=True)
            )
        ],
        "threads": request.threads,
        "affinity": request.affinity,
        "rounds": request.rounds,
        "warmup": request.warmup,
        "seed": request.seed,
        "duration_s": request.duration_s,
        "operators": [
            {"file": operator_file(index), "label": operator.label, "inputs": operator.inputs}
            for index, operator in enumerate(request.operators)
        ],
        "limit_s": limit_s,
        "files": [
            {"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in files.items()
        ],
    }


def request_files(request: Request) -> dict[str, bytes]:
    """Return the files that a request needs on the device, by their names there.

    Each artifact keeps its name and gets a folder of its own: an ONNX model may have a file of
    weights beside it, which it refers to by name.

    Raises:
        ArtifactError: A file cannot be read.
    """
    files: dict[str, bytes] = {}
    for index, (path, samples) in enumerate(zip(request.artifacts, request.inputs, strict=True)):
        for part in _files_of_artifact(path):
            try:
                files[artifact_file(index, part)] = part.read_bytes()
            except OSError as error:
                raise ArtifactError(
                    f"Could not read {part}: {error.strerror}.",
                    remedy="Check the path, or make the artifact with `mobiledeploy export`.",
                ) from error
        if samples is not None:
            files[inputs_file(index)] = to_npy(samples)
    return files | {
        operator_file(index): operator.data for index, operator in enumerate(request.operators)
    }


def artifact_file(index: int, path: Path) -> str:
    """Return the name that an artifact's file has on the device."""
    return f"{index}/{path.name}"


def inputs_file(index: int) -> str:
    """Return the name that the file of an artifact's inputs has on the device."""
    return f"{index}/inputs.npy"


def operator_file(index: int) -> str:
    """Return the name that a program of one operator has on the device."""
    return f"operators/{index}.pte"


def to_npy(array: Samples) -> bytes:
    """Return an array as the bytes of a `.npy` file."""
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(array))
    return file.getvalue()


def from_npy(data: bytes) -> Samples:
    """Return the array of a `.npy` file, which may hold numbers only (no pickles)."""
    array: Samples = np.load(io.BytesIO(data), allow_pickle=False)
    return array


def _files_of_artifact(path: Path) -> Iterator[Path]:
    yield path
    weights = path.with_name(path.name + ".data")
    if path.suffix == ".onnx" and weights.is_file():
        yield weights
