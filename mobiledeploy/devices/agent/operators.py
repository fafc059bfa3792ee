"""Time every operator of an artifact.

ONNX Runtime has a profiler, which times every kernel within whole inferences. ExecuTorch's wheels
have none: the other side cuts the operators out of the network and sends each as a program of its
own, the first of which does nothing.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from mobiledeploy.devices.agent.errors import RefusalError
from mobiledeploy.devices.agent.runtimes import OperatorProgram, ProfiledOnnxRuntime

if TYPE_CHECKING:
    from collections.abc import Callable

    Tell = Callable[[dict[str, Any]], None]
    Request = dict[str, Any]
    Operators = list[dict[str, Any]]


def time_kernels(
    request: Request, folder: str, batch: Any, before_each: Callable[[], None], tell: Tell
) -> Operators:
    """Return "name", "kind" and "times_us" of every kernel of an `.onnx`, in their order."""
    [artifact] = request["artifacts"]
    path = os.path.join(folder, artifact["file"])
    runner = ProfiledOnnxRuntime(path, artifact["label"], request["threads"])
    total = request["warmup"] + request["rounds"]
    for done in range(total):
        before_each()
        runner.run(batch)
        tell({"progress": (done + 1) / total})
    kernels: dict[str, dict[str, Any]] = {}
    for event in runner.events():
        if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time"):
            continue
        told = event["args"]
        shapes = [shape for output in told["output_type_shape"] for shape in output.values()]
        kernel = kernels.setdefault(
            told["node_index"],
            {
                "name": _name(event, shapes),
                "kind": told["op_name"],
                "times_us": [],
            },
        )
        kernel["times_us"].append(event["dur"])
    for kernel in kernels.values():
        if len(kernel["times_us"]) != total:
            raise RefusalError(
                "RuntimeFailedError",
                f"ONNX Runtime's profiler tells {len(kernel['times_us'])} runs of "
                f"{kernel['name']}; there were {total}.",
                "Give fewer --runs: its memory for events is limited.",
            )
        del kernel["times_us"][: request["warmup"]]
    return list(kernels.values())


def _name(event: dict[str, Any], shapes: list[list[int]]) -> str:
    node = event["name"][: -len("_kernel_time")]
    return " ".join([event["args"]["op_name"], node, *map(str, shapes[:1])])


def time_programs(
    request: Request, folder: str, before_each: Callable[[], None], tell: Tell
) -> Operators:
    """Return the "times_us" of each program of one operator, round by round.

    Each runs once before it is timed: the others have used the cache since its last turn.
    """
    programs = [
        OperatorProgram(
            os.path.join(folder, each["file"]), each["label"], request["threads"], each["inputs"]
        )
        for each in request["operators"]
    ]
    times_us: list[list[float]] = [[] for _ in programs]
    for done in range(request["rounds"]):
        before_each()
        for program, of in zip(programs, times_us):
            program.run_alone()
            of.append(elapsed_us(program.run_alone))
        tell({"progress": (done + 1) / request["rounds"]})
    return [{"times_us": of} for of in times_us]


def elapsed_us(run: Callable[[], object]) -> float:
    """Return how long a call takes."""
    began = time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - began) / 1e3
