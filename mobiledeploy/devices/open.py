"""Places where artifacts run: this machine, one over ssh, a phone over adb, or any command's.

On all of them the steps are the same: describe, push into a fresh temporary folder (with the
sha256 checked over there), run, pull, clean up. What comes back is raw; statistics are made here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

from mobiledeploy.devices.agent_session import arrays_of
from mobiledeploy.devices.android.device import AdbDevice
from mobiledeploy.devices.host import Host
from mobiledeploy.devices.python_device import TIMEOUT_S, CommandDevice, LocalDevice
from mobiledeploy.devices.request import OperatorProgram, Request
from mobiledeploy.devices.ssh import SshDevice
from mobiledeploy.errors import UsageError
from mobiledeploy.utils.progress import track

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from mobiledeploy.devices.request import Message, Samples

__all__ = [
    "Device",
    "Host",
    "LocalDevice",
    "OperatorProgram",
    "Request",
    "arrays_of",
    "open_device",
    "parse_cores",
    "run_artifact",
    "run_tracked",
]

_STEPS = 20


class Device(Protocol):
    """Where artifacts run. Use it as a context manager: it may hold a connection."""

    uri: str

    @property
    def is_local(self) -> bool:
        """Return whether this is the machine that we run on, as it is."""

    @property
    def host(self) -> Host:
        """Return what the machine says of itself."""

    def converse(self, request: Request) -> Iterator[Message]:
        """Run one session; yield "loading", "progress", and the "result" as the last."""

    def __enter__(self) -> Self:
        """Connect."""

    def __exit__(self, *_: object) -> None:
        """Close the connection; nothing of ours is left over there."""


def open_device(
    uri: str = "local",
    *,
    timeout_s: float = TIMEOUT_S,
    python: str = "",
    runners: Sequence[Path] = (),
    counts_instructions: bool = False,
) -> Device:
    """Return the device of a URI: `local`, `ssh://...`, `adb://...`, `exec:COMMAND`.

    Args:
        uri: Where.
        timeout_s: How long one session may take, and how long it may say nothing.
        runners: Native runners for a phone (adb).
        python: The interpreter over there, where the URI does not say (ssh); "" for the one of
            `mobiledeploy device setup`, or else python3.
        counts_instructions: Whether instructions will be counted on it (QEMU, by exec).

    Raises:
        UsageError: no such kind of device, or an option that it does not have.
        RuntimeFailedError: what counts instructions cannot be compiled.
    """
    if counts_instructions and not uri.startswith("exec:"):
        raise UsageError(
            f"On {uri} instructions cannot be counted; an emulator counts them.",
            remedy="Count where QEMU runs ARM64 code: --device 'exec:qemu-aarch64 -L ROOT "
            "ROOT/usr/bin/python3'. scripts/arm64-root builds such a ROOT.",
        )
    if uri.startswith("ssh://"):
        return SshDevice(uri, python=python, timeout_s=timeout_s)
    if python:
        raise UsageError(f"{uri} names its Python itself: --python is for ssh:// only.")
    if uri.startswith("adb://"):
        return AdbDevice(uri, runners=runners, timeout_s=timeout_s)
    if runners:
        raise UsageError(f"{uri} runs its own runtimes: --runner is for adb:// only.")
    if uri == "local":
        return LocalDevice(timeout_s=timeout_s)
    if uri.startswith("exec:"):
        return CommandDevice(uri, timeout_s=timeout_s, counts_instructions=counts_instructions)
    raise UsageError(
        f"There is no device {uri!r}.",
        remedy="Devices are local, ssh://[user@]host[:port], adb://[SERIAL], exec:COMMAND.",
    )


def parse_cores(text: str | None) -> tuple[int, ...]:
    """Return the cores that "4-7" or "0,2" names, each once, in order; none for None.

    Raises:
        UsageError: it does not name cores.
    """
    cores: set[int] = set()
    for part in () if text is None else text.split(","):
        first, _, last = part.partition("-")
        try:
            named = range(int(first), int(last or first) + 1)
        except ValueError:
            named = range(0)
        if not named:
            raise UsageError(
                f"--cpu-affinity is {text!r}; expected cores.", remedy="For example 0,2 or 4-7."
            )
        cores.update(named)
    return tuple(sorted(cores))


def run_artifact(device: Device, artifact: Path, inputs: Samples, *, threads: int = 1) -> Samples:
    """Run samples through an artifact on a device.

    Args:
        device: From `open_device`, entered.
        artifact: A `.onnx` or a `.pte` file of this machine.
        inputs: (N, C, H, W) float32.
        threads: Threads that compute one inference.

    Returns:
        Its output, (N, classes) float32.

    Raises:
        ArtifactError: the artifact cannot be read, or its runtime does not accept it.
        RuntimeFailedError: the device cannot be reached, or its runtime failed.
    """
    request = Request(task="outputs", artifacts=(artifact,), inputs=(inputs,), threads=threads)

    result = run_tracked(device, request, f"Running {artifact.name} on {device.uri}")
    logits: Samples = arrays_of(result)[0]
    return logits


def run_tracked(device: Device, request: Request, description: str) -> Message:
    """Run one session, showing the progress that it reports; return its result."""

    def steps() -> Iterator[Message]:
        shown = 0
        for message in device.converse(request):
            now = int(message.get("progress", 0) * _STEPS)
            yield from [message] * max(1, now - shown)
            shown = max(shown, now)

    *_, result = track(steps(), description, _STEPS)
    return result
