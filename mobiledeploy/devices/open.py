"""Open a device by its URI, and run artifacts on it.

Every device works in the same steps: describe the machine, send the files into a new temporary
folder and check their sha256 there, run, return the results, remove the folder. Devices return raw
values; statistics are computed on this side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

from mobiledeploy.devices.agent_session import decode_outputs
from mobiledeploy.devices.android.device import BuiltRunnersDevice
from mobiledeploy.devices.android.native import AdbDevice
from mobiledeploy.devices.python_device import TIMEOUT_S, CommandDevice, LocalDevice, RunnerKind
from mobiledeploy.devices.request import Request
from mobiledeploy.devices.ssh import SshDevice
from mobiledeploy.errors import UsageError
from mobiledeploy.utils.progress import track

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from mobiledeploy.devices.host import Host
    from mobiledeploy.devices.request import Message, Outputs, Result, Samples

_PROGRESS_STEPS = 20
_MAX_CORE = 4095


class Device(Protocol):
    """A place where artifacts run. Use it as a context manager: it may hold a connection."""

    uri: str

    @property
    def is_local(self) -> bool:
        """Return whether this device is the machine and the Python that mobiledeploy runs in."""

    @property
    def traces_operators(self) -> bool:
        """Return whether it times the operators of a `.pte` in whole inferences."""

    @property
    def host(self) -> Host:
        """Return the machine's description."""

    def conditions(self) -> Mapping[str, object]:
        """Return what the device's speed depends on, now."""

    def run_session(self, request: Request) -> Iterator[Message]:
        """Run one session; yield "loading" and "progress" messages, and "result" last."""

    def __enter__(self) -> Self:
        """Connect."""

    def __exit__(self, *_: object) -> None:
        """Close the connection; no files of ours are left on the device."""


def open_device(
    uri: str = "local",
    *,
    timeout_s: float = TIMEOUT_S,
    python: str = "",
    runner: RunnerKind = "",
    built_runners: Sequence[Path] = (),
    counts_instructions: bool = False,
) -> Device:
    """Return the device of a URI: `local`, `ssh://...`, `adb://...` or `exec:COMMAND`.

    Args:
        uri: The device.
        timeout_s: How long a task may take, and how long a session may send nothing.
        python: The interpreter on an ssh device; "" for the one of `mobiledeploy device setup`, or
            else python3.
        runner: "python" or "native" (ssh and exec); "" for what was set up.
        built_runners: Programs for a phone that the user built (adb only), in place of the native
            runner.
        counts_instructions: Whether instructions will be counted (QEMU through exec only).

    Raises:
        UsageError: The URI is of an unknown kind, or an option does not apply to it.
        RuntimeFailedError: The plugin that counts instructions cannot be compiled.
    """
    _require_options_apply(
        uri,
        python=python,
        runner=runner,
        built_runners=built_runners,
        counts_instructions=counts_instructions,
    )
    if uri.startswith("ssh://"):
        return SshDevice(uri, python=python, runner=runner, timeout_s=timeout_s)
    if uri.startswith("adb://"):
        if built_runners:
            return BuiltRunnersDevice(uri, runners=built_runners, timeout_s=timeout_s)
        return AdbDevice(uri, timeout_s=timeout_s)
    if uri == "local":
        return LocalDevice(timeout_s=timeout_s)
    if uri.startswith("exec:"):
        return CommandDevice(
            uri, runner=runner, timeout_s=timeout_s, counts_instructions=counts_instructions
        )
    raise UsageError(
        f"{uri!r} is not a device.",
        remedy="Use local, ssh://[user@]host[:port], adb://[SERIAL] or exec:COMMAND.",
    )


def _require_options_apply(
    uri: str,
    *,
    python: str,
    runner: RunnerKind,
    built_runners: Sequence[Path],
    counts_instructions: bool,
) -> None:
    """Raise if an option does not apply to the kind of a device.

    Raises:
        UsageError: The message names the option.
    """
    if counts_instructions and not uri.startswith("exec:"):
        raise UsageError(
            f"Instructions cannot be counted on {uri}: only an emulator counts them.",
            remedy="Use QEMU: --device 'exec:qemu-aarch64 -cpu cortex-a76', after `mobiledeploy "
            "device setup` with the same device.",
        )
    if python and not uri.startswith("ssh://"):
        raise UsageError(
            f"--python applies to ssh:// devices only; the device is {uri}.",
            remedy="Remove --python.",
        )
    if python and runner == "native":
        raise UsageError(
            "--python and --runner native exclude one another.", remedy="Leave one of them out."
        )
    if built_runners and not uri.startswith("adb://"):
        raise UsageError(
            f"--runner PATH applies to adb:// devices only; the device is {uri}.",
            remedy="Use --runner native or --runner python, or remove --runner.",
        )
    if runner == "python" and uri.startswith("adb://"):
        raise UsageError(
            "There is no Python on Android.", remedy="Remove --runner, or use --runner native."
        )
    if runner == "native" and uri == "local":
        raise UsageError(
            "The device local runs artifacts in the Python of mobiledeploy.",
            remedy="Use --device exec:env --runner native, after `mobiledeploy device setup "
            "exec:env`.",
        )


def parse_cores(text: str | None) -> tuple[int, ...]:
    """Return the cores of "4-7" or "0,2", sorted and without duplicates; () for None.

    Raises:
        UsageError: The text is not a list of cores.
    """
    cores: set[int] = set()
    for part in () if text is None else text.split(","):
        first, _, last = part.partition("-")
        try:
            named = range(int(first), int(last or first) + 1)
        except ValueError:
            named = range(0)
        if not named or named[-1] > _MAX_CORE:
            raise UsageError(
                f"--cpu-affinity is {text!r}; expected cores from 0 to {_MAX_CORE}.",
                remedy="For example 0,2 or 4-7.",
            )
        cores.update(named)
    return tuple(sorted(cores))


def run_artifact(device: Device, artifact: Path, inputs: Samples, *, threads: int = 1) -> Outputs:
    """Run samples through an artifact on a device.

    Args:
        device: From `open_device`, entered.
        artifact: A `.onnx` or `.pte` file on this machine.
        inputs: (N, C, H, W) float32, or (N, H, W, C) uint8 of pixels.
        threads: Threads that compute one inference.

    Returns:
        The outputs in the artifact's order, (N, ...) each, in their own types.

    Raises:
        ArtifactError: The artifact cannot be read, or its runtime rejects it.
        RuntimeFailedError: The device cannot be reached, or its runtime failed.
    """
    request = Request(task="outputs", artifacts=(artifact,), inputs=(inputs,), threads=threads)
    result = run_with_progress(device, request, f"Running {artifact.name} on {device.uri}")
    [outputs] = decode_outputs(result["outputs"])
    return outputs


def run_with_progress(device: Device, request: Request, description: str) -> Result:
    """Run one session, showing its progress; return its result."""

    def steps() -> Iterator[Message]:
        shown = 0
        for message in device.run_session(request):
            now = int(message.get("progress", 0) * _PROGRESS_STEPS)
            yield from [message] * max(1, now - shown)
            shown = max(shown, now)

    *_, last = track(steps(), description, _PROGRESS_STEPS)
    return last["result"]
