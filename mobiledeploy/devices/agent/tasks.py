"""What the agent can be asked to do with artifacts: time, count, profile, or only run them."""

from __future__ import annotations

import base64
import io
import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from mobiledeploy.devices.agent.errors import RefusalError
from mobiledeploy.devices.agent.instructions import instructions_of
from mobiledeploy.devices.agent.machine import conditions
from mobiledeploy.devices.agent.operators import elapsed_us, time_kernels, time_programs
from mobiledeploy.devices.agent.runtimes import Runner, open_runner, runner_type
from mobiledeploy.devices.agent.timing import PeakMemory, ProgressReport, interleaved

if TYPE_CHECKING:
    from collections.abc import Callable

    Tell = Callable[[dict[str, Any]], None]
    Request = dict[str, Any]

_SAMPLES = 2  # of noise, where no inputs were sent


def bench(request: Request, folder: str, tell: Tell) -> dict[str, Any]:
    """Load all artifacts in the order given, time them against one another.

    Request: "artifacts" [{"file", "label", "inputs": file or None}], "threads", and the arguments
    of `interleaved`: "rounds", "warmup", "seed", "duration_s".

    Returns:
        "fresh" of the first artifact, "times_ms" [artifact][round], "conditions" before and after,
        and "outputs" of those artifacts that came with inputs.
    """
    import numpy  # noqa: F401 - what every runtime needs counts for none of them

    runners, inputs = [], []
    for place, artifact in enumerate(request["artifacts"]):
        tell({"loading": artifact["label"]})
        if place == 0:
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
        after_round=ProgressReport(tell, request["rounds"], request["duration_s"]),
    )
    after = conditions()
    given = [bool(artifact["inputs"]) for artifact in request["artifacts"]]
    return {
        "fresh": fresh,
        "times_ms": times_ms,
        "conditions": {"before": before, "after": after},
        "outputs": [
            encode(run_all(runner, samples)) if wanted else None
            for runner, samples, wanted in zip(runners, inputs, given)
        ],
    }


def instructions(request: Request, folder: str, tell: Tell) -> dict[str, Any]:
    """Count the instructions of one artifact's inferences, after "warmup" that do not count.

    One, because what another has left in memory could change the count.

    Returns:
        "runtime", "instructions" [round], and "outputs" of the artifact if it came with inputs.
    """
    [artifact] = request["artifacts"]
    tell({"loading": artifact["label"]})
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
        "outputs": [encode(run_all(runner, samples)) if wanted else None],
    }


def profile(request: Request, folder: str, tell: Tell) -> dict[str, Any]:
    """Time one artifact's operators (`operators`), in turn with the whole network.

    Request: "rounds" that count, "warmup" that do not; of a `.pte` "operators" [{"file", "label",
    "inputs": [(datatype, shape)]}].

    Returns:
        "runtime", "whole_us" [round], and "operators", each with its "times_us" [round].
    """
    [artifact] = request["artifacts"]
    tell({"loading": artifact["label"]})
    runner = open_runner(artifact, folder, request["threads"])
    batch = samples_for(artifact, folder, runner)[: runner.batch_size]
    run = partial(runner.run, batch)
    whole_us: list[float] = []

    def time_whole() -> None:
        run()
        whole_us.append(elapsed_us(run))

    operators = (
        time_programs(request, folder, time_whole, tell)
        if request["operators"]
        else time_kernels(request, folder, batch, time_whole, tell)
    )
    return {"runtime": runner.runtime, "whole_us": whole_us, "operators": operators}


def outputs(request: Request, folder: str, tell: Tell) -> dict[str, Any]:
    """Run all samples through each artifact; return "inputs" and "outputs"."""
    inputs, results = [], []
    for artifact in request["artifacts"]:
        tell({"loading": artifact["label"]})
        runner = open_runner(artifact, folder, request["threads"])
        samples = samples_for(artifact, folder, runner)
        inputs.append(None if artifact["inputs"] else encode(samples))
        results.append(encode(run_all(runner, samples, tell)))
    return {"inputs": inputs, "outputs": results}


def load_fresh(
    artifact: dict[str, Any], folder: str, threads: int
) -> tuple[Runner, Any, dict[str, Any]]:
    """Load the first artifact of this process and run it once, looking closely."""
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
    runner.run(batch)
    ran = time.perf_counter()
    fresh = {
        "runtime": runner.runtime,
        "load_ms": 1e3 * (loaded - began),
        "first_ms": 1e3 * (ran - prepared),
        "peak_memory_bytes": memory.added_bytes(),
    }
    return runner, samples, fresh


def run_all(runner: Runner, samples: Any, tell: Tell = lambda _: None) -> Any:
    """Run samples through a network, one batch at a time; return what comes out, stacked."""
    import numpy as np

    size = runner.batch_size
    if len(samples) % size:
        raise RefusalError(
            "RuntimeFailedError",
            f"The network takes {size} samples at a time; it was given {len(samples)}.",
        )
    parts = []
    for start in range(0, len(samples), size):
        parts.append(np.array(runner.run(samples[start : start + size])))
        tell({"progress": (start + size) / len(samples)})
    return np.concatenate(parts)


def samples_for(artifact: dict[str, Any], folder: str, runner: Runner) -> Any:
    """Return the inputs that were sent, or noise: what images look like after normalisation.

    The noise is uniform and made of integers: the same on every machine, and small in memory.
    """
    import numpy as np

    if artifact["inputs"]:
        return np.load(os.path.join(folder, artifact["inputs"]))
    shape = (_SAMPLES * runner.batch_size, *runner.input_shape)
    codes = np.random.default_rng(0).integers(-128, 128, shape, np.int8)
    return codes.astype(np.float32) / np.float32(74)  # their standard deviation


def encode(array: Any) -> str:
    """Return an array as the text of a `.npy` file."""
    import numpy as np

    file = io.BytesIO()
    np.save(file, array)
    return base64.b64encode(file.getvalue()).decode()


TASKS = {"bench": bench, "instructions": instructions, "outputs": outputs, "profile": profile}
