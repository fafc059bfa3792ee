"""The agent's tasks: time artifacts, count their instructions, profile them, or only run them.

Each task takes the request, the folder of its files, and a function that sends messages; it returns
its part of a `Result`.
"""

from __future__ import annotations

import base64
import io
import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from mobiledeploy.devices.agent.errors import AgentError
from mobiledeploy.devices.agent.instructions import instructions_of
from mobiledeploy.devices.agent.machine import conditions
from mobiledeploy.devices.agent.operators import elapsed_us, time_kernels, time_programs
from mobiledeploy.devices.agent.runtimes import Runner, open_runner, runner_type
from mobiledeploy.devices.agent.timing import PeakMemory, ProgressReport, interleaved

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobiledeploy.devices.request import (
        ArtifactEntry,
        FreshRun,
        Message,
        RequestMessage,
        Result,
    )

    Send = Callable[[Message], None]

_NOISE_BATCHES = 2  # where no inputs were sent


def bench(request: RequestMessage, folder: str, send: Send) -> Result:
    """Load all artifacts in their order, then time them against one another (`interleaved`).

    Returns:
        "fresh" of the first artifact, "times_ms", "conditions", and "outputs" of the artifacts that
        came with inputs.
    """
    import numpy  # noqa: F401 - every runtime needs it, so it is in no artifact's load time

    runners, inputs = [], []
    for index, artifact in enumerate(request["artifacts"]):
        send({"loading": artifact["label"]})
        if index == 0:
            runner, samples, fresh = load_fresh(artifact, folder, request["threads"])
        else:
            runner = open_runner(artifact, folder, request["threads"])
            samples = samples_for(artifact, folder, runner)
        runners.append(runner)
        inputs.append(samples)
    before = conditions()
    times_ms = interleaved(
        [
            partial(runner.run, samples[: runner.batch_size])
            for runner, samples in zip(runners, inputs)
        ],
        rounds=request["rounds"],
        warmup=request["warmup"],
        seed=request["seed"],
        duration_s=request["duration_s"],
        after_round=ProgressReport(send, request["rounds"], request["duration_s"]),
    )
    after = conditions()
    has_inputs = [bool(artifact["inputs"]) for artifact in request["artifacts"]]
    return {
        "fresh": fresh,
        "times_ms": times_ms,
        "conditions": {"before": before, "after": after},
        "outputs": [
            encode_all(run_all(runner, samples, artifact)) if wanted else None
            for runner, samples, artifact, wanted in zip(
                runners, inputs, request["artifacts"], has_inputs
            )
        ],
    }


def instructions(request: RequestMessage, folder: str, send: Send) -> Result:
    """Count the instructions of one artifact's inferences, after "warmup" others.

    Only one artifact per process: what another one leaves in memory could change the count.

    Returns:
        "runtime", "instructions", and "outputs" if the artifact came with inputs.
    """
    [artifact] = request["artifacts"]
    send({"loading": artifact["label"]})
    runner = open_runner(artifact, folder, request["threads"])
    samples = samples_for(artifact, folder, runner)
    batch = samples[: runner.batch_size]
    counts = instructions_of(
        partial(runner.run, batch), rounds=request["rounds"], warmup=request["warmup"]
    )
    wanted = bool(artifact["inputs"])
    return {
        "runtime": runner.runtime,
        "instructions": counts,
        "outputs": [encode_all(run_all(runner, samples, artifact)) if wanted else None],
    }


def profile(request: RequestMessage, folder: str, send: Send) -> Result:
    """Time one artifact's operators (see `operators`), in turn with the whole network.

    Returns:
        "runtime", "whole_us" and "operators".
    """
    [artifact] = request["artifacts"]
    send({"loading": artifact["label"]})
    runner = open_runner(artifact, folder, request["threads"])
    batch = samples_for(artifact, folder, runner)[: runner.batch_size]
    run = partial(runner.run, batch)
    whole_us: list[float] = []

    def time_whole() -> None:
        run()
        whole_us.append(elapsed_us(run))

    operators = (
        time_programs(request, folder, time_whole, send)
        if request["operators"]
        else time_kernels(request, folder, batch, time_whole, send)
    )
    return {"runtime": runner.runtime, "whole_us": whole_us, "operators": operators}


def outputs(request: RequestMessage, folder: str, send: Send) -> Result:
    """Run all samples through each artifact; return "inputs" and "outputs"."""
    inputs: list[str | None] = []
    results: list[list[str] | None] = []
    for artifact in request["artifacts"]:
        send({"loading": artifact["label"]})
        runner = open_runner(artifact, folder, request["threads"])
        samples = samples_for(artifact, folder, runner)
        if not artifact["inputs"]:
            first_run(runner, samples[: runner.batch_size], artifact)
        inputs.append(None if artifact["inputs"] else encode(samples))
        results.append(encode_all(run_all(runner, samples, artifact, send)))
    return {"inputs": inputs, "outputs": results}


def load_fresh(artifact: ArtifactEntry, folder: str, threads: int) -> tuple[Runner, Any, FreshRun]:
    """Load the first artifact of this process and run it once.

    Returns:
        The runner, its samples, and the time and memory that loading and running took.
    """
    kind = runner_type(artifact)
    path = os.path.join(folder, artifact["file"])
    with open(path, "rb") as handle:  # into the page cache
        handle.read()
    memory = PeakMemory()
    began = time.perf_counter()
    runner = kind(path, artifact["label"], threads)
    loaded = time.perf_counter()
    samples = samples_for(artifact, folder, runner)
    batch = samples[: runner.batch_size]
    prepared = time.perf_counter()
    first_run(runner, batch, artifact)
    ran = time.perf_counter()
    fresh: FreshRun = {
        "runtime": runner.runtime,
        "load_ms": 1e3 * (loaded - began),
        "first_ms": 1e3 * (ran - prepared),
        "peak_memory_bytes": memory.added_bytes(),
    }
    return runner, samples, fresh


def first_run(runner: Runner, batch: Any, artifact: ArtifactEntry) -> None:
    """Run a network for the first time.

    Raises:
        AgentError: It fails; on noise of its own shape, the artifact is at fault.
    """
    try:
        runner.run(batch)
    except AgentError as error:
        if artifact["inputs"]:
            raise
        raise AgentError(
            "ArtifactError", error.report["message"], error.report["remedy"]
        ) from error


def run_all(
    runner: Runner, samples: Any, artifact: ArtifactEntry, send: Send = lambda _: None
) -> list[Any]:
    """Run samples through a network, one batch at a time; return each output, stacked.

    Raises:
        AgentError: The number of samples is not a multiple of the batch size, or an output is no
            array of numbers with one row per sample, all of one shape.
    """
    import numpy as np

    size = runner.batch_size
    if len(samples) % size:
        raise AgentError(
            "RuntimeFailedError",
            f"The network takes {size} samples at a time; it was given {len(samples)}.",
            f"Pass a multiple of {size} samples.",
        )
    batches = []
    for start in range(0, len(samples), size):
        outputs = runner.run(samples[start : start + size])
        for output in outputs:
            require_rows(output, size, artifact["label"])
        batches.append([np.array(output) for output in outputs])
        send({"progress": (start + size) / len(samples)})
    stacked = list(zip(*batches))
    if any(len({part.shape for part in parts}) > 1 for parts in stacked):
        raise _other_output(artifact["label"], "rows whose shape depends on the image")
    return [np.concatenate(parts) for parts in stacked]


def require_rows(output: Any, size: int, label: str) -> None:
    """Raise unless an output of a batch of `size` samples is an array of numbers, (size, ...).

    Raises:
        AgentError: It is text, a sequence or a map, or has another first axis.
    """
    import numpy as np

    is_array = isinstance(output, np.ndarray)
    if is_array and output.dtype.kind in "fiub" and output.shape[:1] == (size,):
        return
    found = f"{output.dtype} {output.shape}" if is_array else f"a {type(output).__name__}"
    raise _other_output(label, found)


def _other_output(label: str, found: str) -> AgentError:
    return AgentError(
        "ArtifactError",
        f"{label} returns {found}; expected numbers, one row per image.",
        "Only outputs like these can be compared. `mobiledeploy export` writes no others.",
    )


def samples_for(artifact: ArtifactEntry, folder: str, runner: Runner) -> Any:
    """Return the inputs that were sent, or noise: pixels, or the range of normalised images.

    The noise is uniform and made of integers: the same on every machine, and small in memory.

    Raises:
        AgentError: The inputs of the network do not fit into memory.
    """
    import numpy as np

    if artifact["inputs"]:
        return read_samples(os.path.join(folder, artifact["inputs"]), artifact["label"])
    shape = (_NOISE_BATCHES * runner.batch_size, *runner.input_shape)
    try:
        if runner.input_type == "uint8":
            return np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        codes = np.random.default_rng(0).integers(-128, 128, shape, np.int8)
        return codes.astype(np.float32) / np.float32(74)  # their standard deviation
    except (MemoryError, ValueError) as error:
        raise AgentError(
            "ArtifactError",
            f"{artifact['label']} takes inputs of {shape}, for which there is no memory: {error}.",
            "Export the model again: the file is damaged.",
        ) from error


def read_samples(path: str, label: str) -> Any:
    """Return the samples of a `.npy` file, (N, ...).

    Raises:
        AgentError: It is damaged, or holds something else.
    """
    import numpy as np

    try:
        with open(path, "rb") as file:
            samples = np.lib.format.read_array(file, allow_pickle=False)
        len(samples)
    except Exception as error:
        raise AgentError(
            "RuntimeFailedError",
            f"The inputs of {label} are not a .npy file of samples: {error}.",
            "Pass contiguous float32 or uint8 samples.",
        ) from error
    return samples


def encode(array: Any) -> str:
    """Return an array as a `.npy` file in base64."""
    import numpy as np

    file = io.BytesIO()
    np.save(file, array)
    return base64.b64encode(file.getvalue()).decode()


def encode_all(arrays: list[Any]) -> list[str]:
    """Return each array as a `.npy` file in base64; it holds the type."""
    return [encode(array) for array in arrays]


TASKS = {"bench": bench, "instructions": instructions, "outputs": outputs, "profile": profile}
