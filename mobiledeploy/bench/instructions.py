"""Count the instructions of an inference, where QEMU runs ARM64 code: a cost without noise.

Each artifact has a process of its own, with one thread and constant Python hashes, so the count is
the same each time for the same file, runtime and processor. Instructions are not time: a processor
executes several at once, and waits for memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobiledeploy.bench.outputs import check_outputs
from mobiledeploy.bench.results import InstructionCount
from mobiledeploy.devices.agent_session import decode_inputs, decode_outputs
from mobiledeploy.devices.python_device import TIMEOUT_S, LocalDevice
from mobiledeploy.devices.request import Request
from mobiledeploy.errors import UsageError
from mobiledeploy.runtimes.open import check_artifact
from mobiledeploy.utils.files import sha256_of
from mobiledeploy.utils.progress import track

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mobiledeploy.devices.open import Device

RUNS = 5
WARMUP = 2
MAX_SPREAD = 0.01


def count_instructions(
    artifacts: Sequence[Path],
    *,
    device: Device,
    runs: int | None = None,
    warmup: int | None = None,
    threads: int = 1,
    affinity: Sequence[int] = (),
    duration_s: float | None = None,
    cool_down_s: float = 0,
    wait_below_c: float | None = None,
    wait_timeout_s: float = TIMEOUT_S,  # noqa: ARG001 - the parameters of `measure`
) -> tuple[InstructionCount, ...]:
    """Count the instructions that an inference of each artifact takes.

    Args:
        artifacts: `.onnx` and `.pte` files.
        device: From `devices.open_device` with `counts_instructions`, entered.
        runs: Inferences of each artifact to count; None for 5.
        warmup: Inferences of each artifact before these; None for 2.
        threads: Must be 1.
        affinity: Cores that the process is bound to; empty for all.
        duration_s: Must be None: a longer run does not improve a count.
        cool_down_s: Must be 0: heat does not change a count.
        wait_below_c: Must be None, too.
        wait_timeout_s: Not used.

    Raises:
        UsageError: There are no artifacts, or an option does not apply to counting.
        ArtifactError: An artifact cannot be read, or its runtime rejects it.
        RuntimeFailedError: The device or a runtime failed, or the device does not count.
    """
    runs = RUNS if runs is None else runs
    warmup = WARMUP if warmup is None else warmup
    _check(artifacts, runs=runs, warmup=warmup, threads=threads)
    if duration_s is not None or cool_down_s or wait_below_c is not None:
        raise UsageError(
            "--duration, --cool-down and --wait-below do not apply to counting instructions.",
            remedy="Use --runs in place of --duration, and remove the others.",
        )
    for path in artifacts:
        check_artifact(path)
    return tuple(
        _count(path, device, runs=runs, warmup=warmup, affinity=tuple(affinity))
        for path in track(artifacts, "Counting instructions", len(artifacts))
    )


def _count(
    path: Path, device: Device, *, runs: int, warmup: int, affinity: tuple[int, ...]
) -> InstructionCount:
    """Count the instructions of one artifact; compare its outputs with this machine's."""
    digest = sha256_of(path)
    run_only = Request(task="outputs", artifacts=(path,), inputs=(None,))
    *_, here = LocalDevice().run_session(run_only)
    [samples] = decode_inputs(here["result"]["inputs"])
    [expected] = decode_outputs(here["result"]["outputs"])
    request = Request(
        task="instructions",
        artifacts=(path,),
        inputs=(samples,),
        affinity=affinity,
        rounds=runs,
        warmup=warmup,
    )
    *_, last = device.run_session(request)
    result = last["result"]
    counts = tuple(result["instructions"])
    return InstructionCount(
        artifact=str(path),
        artifact_sha256=digest,
        runtime=result["runtime"],
        device=device.host.label,
        threads=1,
        warmup=warmup,
        affinity=affinity,
        instructions=counts,
        warnings=warnings_for(counts),
        outputs=check_outputs(expected, decode_outputs(result["outputs"])),
    )


def warnings_for(counts: Sequence[int]) -> tuple[str, ...]:
    """Return a warning if the counts of one artifact differ by more than 1%."""
    spread = (max(counts) - min(counts)) / min(counts)
    if spread <= MAX_SPREAD:
        return ()
    warning = (
        f"The inferences differ by {spread:.1%} in their instructions (expected at most "
        f"{MAX_SPREAD:.0%}): the runtime is not warm yet, or its threads wait for one another. "
        "Raise --warmup."
    )
    return (warning,)


def _check(artifacts: Sequence[Path], *, runs: int, warmup: int, threads: int) -> None:
    if not artifacts:
        raise UsageError("There is nothing to count.", remedy="Name at least one artifact.")
    for name, number, least in (("runs", runs, 1), ("warmup", warmup, 0)):
        if number < least:
            raise UsageError(f"{name} is {number}; expected at least {least}.")
    if threads != 1:
        raise UsageError(
            f"Instructions cannot be counted exactly with {threads} threads: threads that wait for "
            "one another execute instructions while they wait.",
            remedy="Remove --threads.",
        )
