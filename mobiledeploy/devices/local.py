"""This machine."""

from __future__ import annotations

import sys

from mobiledeploy.devices.agent import BOOTSTRAP
from mobiledeploy.devices.python_device import TIMEOUT_S, PythonDevice


class LocalDevice(PythonDevice):
    """The machine that we run on, with the Python and the runtimes that we run in."""

    def __init__(self, *, timeout_s: float = TIMEOUT_S) -> None:
        super().__init__("local", [sys.executable, "-c", BOOTSTRAP], timeout_s=timeout_s)

    @property
    def is_local(self) -> bool:
        """Return True."""
        return True
