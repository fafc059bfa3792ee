"""Time each operator of an artifact, as its runtime runs it on a device.

ONNX Runtime's profiler times every kernel of whole inferences; so does ExecuTorch's event tracer in
the native runner. ExecuTorch's Python module is built without a tracer: there each operator of the
XNNPACK delegate runs alone, with the shapes, weights and encodings that it has in the network
(`xnnpack_operators`), and the time of a call that does nothing is subtracted. Alone, an operator
finds its weights in the cache but not its input. The whole network is timed in turn with the
operators: compare its time with their sum.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Literal

from pydantic import Field, computed_field

from mobiledeploy.artifact.artifact import Format
from mobiledeploy.bench.xnnpack_operators import (
    SingleOperator,
    empty_operator,
    operator_names,
    single_operators,
)
from mobiledeploy.devices.open import run_with_progress
from mobiledeploy.devices.python_device import LocalDevice
from mobiledeploy.devices.request import OperatorProgram, Request
from mobiledeploy.errors import ArtifactError, UsageError
from mobiledeploy.runtimes.open import check_artifact
from mobiledeploy.utils.json_model import JsonModel

if TYPE_CHECKING:
    from pathlib import Path

    from mobiledeploy.devices.open import Device

RUNS = 50
_WARMUP = 5


class OperatorTime(JsonModel):
    """The time of one operator.

    Attributes:
        name: Operator, node or index, and shape.
        kind: The runtime's name of the operator.
        median_us: Median time of one run.
    """

    name: str
    kind: str
    median_us: float


class KindTime(JsonModel):
    """The time of all operators of one kind.

    Attributes:
        kind: The runtime's name of the operator.
        count: How many operators are of this kind.
        total_us: The sum of their medians.
        share: Of the sum over all operators, 0 to 1.
    """

    kind: str
    count: int
    total_us: float
    share: float


class Profile(JsonModel):
    """The operator times of one artifact.

    Attributes:
        artifact: Its path.
        runtime: Name and version of the runtime.
        device: Label of the device.
        method: How the operators were timed.
        threads: Threads that compute one inference.
        whole_us: Median time of the whole network, without a profiler.
        operators: In the order in which they run.
    """

    artifact: str
    runtime: str
    device: str
    method: str
    threads: int
    whole_us: float
    operators: tuple[OperatorTime, ...]

    @computed_field  # type: ignore[prop-decorator]  # mypy has no decorated properties
    @property
    def sum_us(self) -> float:
        """Return the sum over all operators."""
        return sum(operator.median_us for operator in self.operators)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def by_kind(self) -> tuple[KindTime, ...]:
        """Return the operators grouped by kind, the most expensive kind first."""
        times: dict[str, list[float]] = {}
        for operator in self.operators:
            times.setdefault(operator.kind, []).append(operator.median_us)
        kinds = (
            KindTime(kind=kind, count=len(of), total_us=sum(of), share=self.share_of(sum(of)))
            for kind, of in times.items()
        )
        return tuple(sorted(kinds, key=lambda each: -each.total_us))

    def share_of(self, time_us: float) -> float:
        """Return a time as a share of `sum_us`; 0 if no operator takes longer than a call."""
        return time_us / self.sum_us if self.sum_us else 0.0


class ProfileDocument(JsonModel):
    """What `mobiledeploy bench --profile --json` writes."""

    schema_version: Literal[2] = Field(default=2, alias="schema")
    kind: Literal["mobiledeploy.profile"] = "mobiledeploy.profile"
    profiles: tuple[Profile, ...]


def profile(
    path: Path, *, device: Device | None = None, runs: int = RUNS, threads: int = 1
) -> Profile:
    """Time every operator of an artifact.

    Args:
        path: A `.onnx` or a `.pte`.
        device: From `devices.open_device`, entered; None for this machine.
        runs: Runs of each operator to time.
        threads: Threads that compute one inference.

    Raises:
        UsageError: Fewer than one run or thread, a `.tflite`, or a device that does not report
            operators.
        ArtifactError: The artifact cannot be read, or has no operator that can be timed.
        RuntimeFailedError: The device or its runtime failed.
    """
    if runs < 1 or threads < 1:
        raise UsageError(f"Found {runs} runs and {threads} threads; expected at least 1 of each.")
    if Format.of(path) is Format.TFLITE:
        raise UsageError(
            f"{path}: LiteRT does not report the times of operators.",
            remedy="Profile the .onnx or .pte of the same network: all hold the same integers.",
        )
    check_artifact(path)
    device = device or LocalDevice()
    is_pte = Format.of(path) is Format.PTE
    cut = _operators(path) if is_pte and not device.traces_operators else ()
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
    result = run_with_progress(device, request, description)
    if not result["operators"]:
        raise _nothing_to_time(path)
    medians = [statistics.median(each["times_us"]) for each in result["operators"]]
    if cut:
        call_us, *alone = medians
        medians = [max(0.0, us - call_us) for us in alone]
        method = f"each operator alone, minus {call_us:.1f} us for an empty call"
        names = [(operator.name, operator.kind) for operator in cut[1:]]
    else:
        profiler = "ExecuTorch's event tracer" if is_pte else "ONNX Runtime's profiler"
        method = f"{profiler} in whole inferences, in whole microseconds"
        reported = [(each["name"], each["kind"]) for each in result["operators"]]
        names = _names_in_graph(path, reported) if is_pte else reported
    return Profile(
        artifact=str(path),
        runtime=result["runtime"],
        device=device.host.label,
        method=method,
        threads=threads,
        whole_us=statistics.median(result["whole_us"]),
        operators=tuple(
            OperatorTime(name=name, kind=kind, median_us=us)
            for (name, kind), us in zip(names, medians, strict=True)
        ),
    )


def _names_in_graph(path: Path, reported: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the names and kinds of operators as `xnnpack_operators` has them, with shapes.

    XNNPACK runs the nodes of its graph in their order and ends its own names with a number. Where
    there are other kernels, or not one operator for each node, its own names are returned.
    """
    nodes = list(operator_names(path))
    are_nodes = all(" #" in name for name, _ in reported) and len(nodes) == len(reported)
    return nodes if are_nodes else reported


def _operators(path: Path) -> tuple[SingleOperator, ...]:
    """Return an operator that does nothing, followed by all operators of a `.pte`.

    Raises:
        ArtifactError: The `.pte` has no operator that can be timed.
    """
    operators = tuple(single_operators(path))
    if not operators:
        raise _nothing_to_time(path)
    return empty_operator(), *operators


def _nothing_to_time(path: Path) -> ArtifactError:
    return ArtifactError(
        f"{path} has no operator that can be timed.",
        remedy="Only operators of an XNNPACK delegate can be timed in a .pte, and with the native"
        " runner also ExecuTorch's kernels.",
    )
