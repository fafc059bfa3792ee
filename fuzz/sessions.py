"""Read what a device sends: the protocol of the agent and of the native runner."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mobiledeploy.bench.json_report import to_document
from mobiledeploy.bench.measure import measure
from mobiledeploy.bench.profile import profile
from mobiledeploy.devices.open import run_artifact
from mobiledeploy.devices.python_device import PythonDevice
from mobiledeploy.errors import MobileDeployError

if TYPE_CHECKING:
    from collections.abc import Callable

_ARTIFACT = Path(__file__).with_name("seeds") / "tiny.onnx"
_LIMIT_S = 20.0


class _Replay(PythonDevice):
    """A device that sends the content of a file, whatever it is asked."""

    def __init__(self, path: Path, *, is_native: bool) -> None:
        argv = ["cat", str(path)]
        super().__init__("exec:cat", argv, timeout_s=_LIMIT_S, is_native=is_native)

    @property
    def is_local(self) -> bool:
        """Return True: this machine then runs nothing for comparison."""
        return True


def read_messages(path: Path) -> None:
    """Use a device that sends a file's content, for every task.

    Raises:
        MobileDeployError: every task refused what it was sent.
    """
    images = np.zeros((2, 3, 32, 32), np.float32)
    refused: list[MobileDeployError] = []
    tasks: tuple[Callable[[PythonDevice], object], ...] = (
        lambda device: device.host,
        lambda device: run_artifact(device, _ARTIFACT, images),
        lambda device: to_document(measure([_ARTIFACT], device=device, runs=3), device.host),
        lambda device: profile(_ARTIFACT, device=device, runs=1),
    )
    for number, task in enumerate(tasks):
        try:
            task(_Replay(path, is_native=bool(number % 2)))
        except MobileDeployError as error:
            refused.append(error)
    if len(refused) == len(tasks):
        raise refused[0]
