"""Where the time goes on a device: each operator of an artifact, as the runtime over there runs it.

In: a `.onnx` or a `.pte`, and a device that runs the agent. Out: a `Profile`, by the same two
methods as on this machine (`profile`): ONNX Runtime's profiler; operators that are cut out of the
`.pte` here and run alone there.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from mobiledeploy.bench.profile import OperatorTime, Profile
from mobiledeploy.devices import OperatorProgram, Request, run_tracked
from mobiledeploy.errors import ArtifactError, UsageError
from mobiledeploy.runtimes import check_artifact
from mobiledeploy.runtimes.xnnpack_operators import (
    SingleOperator,
    empty_operator,
    single_operators,
)

if TYPE_CHECKING:
    from pathlib import Path

    from mobiledeploy.devices import Device

_WARMUP = 5


def profile_on(device: Device, path: Path, *, runs: int = 50, threads: int = 1) -> Profile:
    """Time every operator of an artifact on a device.

    Args:
        device: From `devices.open_device`, entered.
        path: A `.onnx` or a `.pte`.
        runs: How many count, of each operator.
        threads: That compute one inference.

    Raises:
        UsageError: fewer than one run or thread, or a device whose runners do not tell.
        ArtifactError: the artifact cannot be read, or holds no operator that could be timed.
        RuntimeFailedError: the device or its runtime failed.
    """
    if runs < 1 or threads < 1:
        raise UsageError(f"{runs} runs on {threads} threads; expected one of each at least.")
    check_artifact(path)
    cut = _operators(path) if path.suffix == ".pte" else ()
    request = Request(
        task="profile",
        artifacts=(path,),
        inputs=(None,),
        threads=threads,
        rounds=runs,
        warmup=_WARMUP,
        operators=tuple(
            OperatorProgram(label=each.name, data=each.program, inputs=each.inputs) for each in cut
        ),
    )
    description = f"Timing the operators of {path.name} on {device.uri}"
    result = run_tracked(device, request, description)["result"]
    medians = [statistics.median(each["times_us"]) for each in result["operators"]]
    if cut:
        call_us, *alone = medians
        medians = [max(0.0, us - call_us) for us in alone]
        method = f"each operator alone, less {call_us:.1f} us for the call"
        names = [(operator.name, operator.kind) for operator in cut[1:]]
    else:
        method = "ONNX Runtime's profiler, within whole inferences"
        names = [(each["name"], each["kind"]) for each in result["operators"]]
    return Profile(
        artifact=str(path),
        runtime=f"{result['runtime']} on {device.host.label}",
        method=method,
        threads=threads,
        whole_us=statistics.median(result["whole_us"]),
        operators=tuple(
            OperatorTime(name=name, kind=kind, median_us=us)
            for (name, kind), us in zip(names, medians, strict=True)
        ),
    )


def _operators(path: Path) -> tuple[SingleOperator, ...]:
    """Return one that does nothing, and all of a `.pte`."""
    operators = tuple(single_operators(path))
    if not operators:
        raise ArtifactError(
            f"{path} holds no operator that could be timed.",
            remedy="Of a .pte, only what an XNNPACK delegate runs can be.",
        )
    return empty_operator(), *operators
