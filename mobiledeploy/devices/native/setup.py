"""Set a device up with the native runner: find its architecture, install the bundle, test it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mobiledeploy.devices.request import Request
from mobiledeploy.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mobiledeploy.devices.native.bundle import Bundle
    from mobiledeploy.devices.native.place import RunnerPlace
    from mobiledeploy.devices.request import Message


class RemoteDevice(Protocol):
    """A device that the native runner is sent to."""

    uri: str

    @property
    def machine(self) -> str:
        """Return its system and architecture, as `uname -sm` prints them."""

    def runner_place(self) -> RunnerPlace:
        """Return where the native runner is kept there."""


class Runs(Protocol):
    """Runs sessions."""

    def run_session(self, request: Request) -> Iterator[Message]:
        """Run one session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """What `install` did.

    Attributes:
        folder: The runner's folder on the device.
        sent_bytes: Bytes that were sent; 0 if the device had the same bundle.
    """

    folder: str
    sent_bytes: int


def remote_architecture(device: RemoteDevice) -> str:
    """Return the architecture of a device.

    Raises:
        UsageError: The device does not run Linux.
    """
    system, _, architecture = device.machine.partition(" ")
    if system != "Linux":
        raise UsageError(
            f"{device.uri} runs {system or 'an unknown system'}; the native runner needs Linux.",
            remedy="Use Python there: --runner python.",
        )
    return "aarch64" if architecture == "arm64" else architecture


def install(device: RemoteDevice, bundle: Bundle) -> Installation:
    """Install a bundle on a device, unless it is there already.

    Raises:
        RuntimeFailedError: The device cannot be reached, or the bundle did not arrive.
    """
    place = device.runner_place()
    sent = 0 if place.has(bundle) else place.install(bundle)
    return Installation(folder=place.folder, sent_bytes=sent)


def self_test(device: Runs) -> list[str]:
    """Load both runtimes on a device; return their names and versions.

    Raises:
        RuntimeFailedError: The runner does not start, or a runtime cannot be loaded.
    """
    *_, last = device.run_session(Request(task="load", artifacts=(), inputs=()))
    return last["result"]["runtimes"]
