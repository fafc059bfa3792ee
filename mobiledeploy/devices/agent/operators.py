"""Time every operator of an artifact.

ONNX Runtime has a profiler, which times every kernel within whole inferences. ExecuTorch's Python
module is built without one: the other side cuts the operators out of the network and sends each as
a program of its own. The first of these programs does nothing; its time is the cost of a call.

In every round each operator runs twice and the second run counts: the weights are in the cache
again, which the other operators have used since the last round.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from mobiledeploy.devices.agent.errors import AgentError
from mobiledeploy.devices.agent.runtimes import OperatorProgram, ProfiledOnnxRuntime

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobiledeploy.devices.request import Message, OperatorTimes, RequestMessage

    Send = Callable[[Message], None]

_KERNEL = "_kernel_time"
_RUNS_PER_ROUND = 2


def time_kernels(
    request: RequestMessage,
    folder: str,
    batch: Any,
    before_each: Callable[[], None],
    send: Send,
) -> list[OperatorTimes]:
    """Time every kernel of an `.onnx`, in the order in which they run.

    Args:
        request: With one artifact.
        folder: Where its files are.
        batch: What the network runs on.
        before_each: Called before each round.
        send: Sends the progress.

    Raises:
        AgentError: The profiler has lost events.
    """
    [artifact] = request["artifacts"]
    path = os.path.join(folder, artifact["file"])
    runner = ProfiledOnnxRuntime(path, artifact["label"], request["threads"])
    rounds = request["warmup"] + request["rounds"]
    for done in range(rounds):
        before_each()
        for _ in range(_RUNS_PER_ROUND):
            runner.run(batch)
        send({"progress": (done + 1) / rounds})
    kernels: dict[str, OperatorTimes] = {}
    for event in runner.events():
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL):
            new: OperatorTimes = {"name": _name(event), "kind": event["args"]["op_name"]}
            kernel = kernels.setdefault(event["args"]["node_index"], {**new, "times_us": []})
            kernel["times_us"].append(event["dur"])
    for kernel in kernels.values():
        found, expected = len(kernel["times_us"]), _RUNS_PER_ROUND * rounds
        if found != expected:
            raise AgentError(
                "RuntimeFailedError",
                f"ONNX Runtime's profile has {found} runs of {kernel['name']}, not {expected}.",
                "Use fewer --runs: the profiler has room for a million events.",
            )
        second_runs = kernel["times_us"][_RUNS_PER_ROUND - 1 :: _RUNS_PER_ROUND]
        kernel["times_us"] = second_runs[request["warmup"] :]
    return list(kernels.values())


def _name(event: dict[str, Any]) -> str:
    """Return the operator, the node and the shape of the first output."""
    details = event["args"]
    shapes = [shape for output in details["output_type_shape"] for shape in output.values()]
    return " ".join([details["op_name"], event["name"][: -len(_KERNEL)], *map(str, shapes[:1])])


def time_programs(
    request: RequestMessage, folder: str, before_each: Callable[[], None], send: Send
) -> list[OperatorTimes]:
    """Time each program of one operator, in the order of the request.

    Args:
        request: With `operators`.
        folder: Where their files are.
        before_each: Called before each round.
        send: Sends the progress.
    """
    programs = [
        OperatorProgram(
            os.path.join(folder, operator["file"]),
            operator["label"],
            request["threads"],
            operator["inputs"],
        )
        for operator in request["operators"]
    ]
    operators: list[OperatorTimes] = [{"times_us": []} for _ in programs]
    for done in range(request["rounds"]):
        before_each()
        for program, operator in zip(programs, operators):
            program.run_operator()
            operator["times_us"].append(elapsed_us(program.run_operator))
        send({"progress": (done + 1) / request["rounds"]})
    return operators


def elapsed_us(run: Callable[[], object]) -> float:
    """Return how long a call takes, in microseconds."""
    began = time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - began) / 1e3
