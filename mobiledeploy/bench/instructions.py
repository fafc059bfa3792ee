"""Instructions per inference, counted where QEMU runs ARM64 code: a cost without noise.

In: artifacts. Out: one `InstructionCount` each. An artifact has a process of its own, with one
thread, and Python's hashes are the same each time: so is the count, for the same file, runtime and
processor. Instructions are not time: how many of them a processor executes at once, and how long it
waits for memory, they do not tell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobiledeploy.bench.outputs import check_outputs
from mobiledeploy.bench.results import InstructionCount
from mobiledeploy.devices.agent_session import arrays_of
from mobiledeploy.devices.python_device import LocalDevice
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
) -> tuple[InstructionCount, ...]:
    """Count the instructions that an inference of each artifact takes.

    Args:
        artifacts: `.onnx` and `.pte` files.
        device: From `devices.open_device` with `counts_instructions`, entered.
        runs: Inferences to count, of each; None: 5.
        warmup: Inferences that come before these, of each; None: 2.
        threads: More than one is refused.
        affinity: Cores to be bound to; none: all.
        duration_s: Anything but None is refused: a count is no better for going on.
        cool_down_s: Anything but 0 is refused: heat does not matter.

    Raises:
        UsageError: nothing to count, or options that make no sense here.
        ArtifactError: an artifact cannot be read, or its runtime does not accept it.
        RuntimeFailedError: the device or a runtime failed, or nothing counts over there.
    """
    _check(artifacts, runs=runs, warmup=warmup, threads=threads)
    if duration_s is not None or cool_down_s:
        raise UsageError(
            "Instructions are counted for a number of inferences; time and heat do not matter.",
            remedy="Give --runs in place of --duration, and leave out --cool-down.",
        )
    for path in artifacts:
        check_artifact(path)
    return tuple(
        _count(
            path,
            device,
            runs=RUNS if runs is None else runs,
            warmup=WARMUP if warmup is None else warmup,
            affinity=tuple(affinity),
        )
        for path in track(artifacts, "Counting instructions", len(artifacts))
    )


def _count(
    path: Path, device: Device, *, runs: int, warmup: int, affinity: tuple[int, ...]
) -> InstructionCount:
    digest = sha256_of(path)
    *_, here = LocalDevice().converse(Request(task="outputs", artifacts=(path,), inputs=(None,)))
    [samples], [expected] = arrays_of(here, "inputs"), arrays_of(here)
    request = Request(
        task="instructions",
        artifacts=(path,),
        inputs=(samples,),
        affinity=affinity,
        rounds=runs,
        warmup=warmup,
    )
    *_, last = device.converse(request)
    counts = tuple(last["result"]["instructions"])
    return InstructionCount(
        artifact=str(path),
        artifact_sha256=digest,
        runtime=last["result"]["runtime"],
        device=device.host.label,
        threads=1,
        warmup=warmup,
        instructions=counts,
        warnings=_doubts(counts),
        outputs=check_outputs(expected, arrays_of(last)),
    )


def _doubts(counts: Sequence[int]) -> tuple[str, ...]:
    spread = (max(counts) - min(counts)) / min(counts)
    if spread <= MAX_SPREAD:
        return ()
    doubt = (
        f"The inferences differ by {spread:.1%} in their instructions (expected at most "
        f"{MAX_SPREAD:.0%}): the runtime is not warm yet, or its threads wait for one another. "
        "Raise --warmup."
    )
    return (doubt,)


def _check(
    artifacts: Sequence[Path], *, runs: int | None, warmup: int | None, threads: int
) -> None:
    if not artifacts:
        raise UsageError("There is nothing to count.", remedy="Name at least one artifact.")
    for name, number, least in (("runs", runs, 1), ("warmup", warmup, 0)):
        if number is not None and number < least:
            raise UsageError(f"{name} is {number}; expected at least {least}.")
    if threads != 1:
        raise UsageError(
            f"Instructions of {threads} threads cannot be counted exactly: threads that wait for "
            "one another execute instructions while they wait.",
            remedy="Leave out --threads.",
        )
