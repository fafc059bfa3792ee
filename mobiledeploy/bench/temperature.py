"""Wait until a device is cool: a hot processor lowers its frequency."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

from mobiledeploy.errors import RuntimeFailedError, UsageError

if TYPE_CHECKING:
    from mobiledeploy.devices.open import Device

POLL_S = 5.0


def wait_until_below(device: Device, celsius: float, *, timeout_s: float) -> None:
    """Wait until a device's hottest sensor is below a temperature.

    Args:
        device: From `devices.open_device`, entered.
        celsius: The temperature.
        timeout_s: How long to wait.

    Raises:
        UsageError: The device has no sensor that can be read.
        RuntimeFailedError: The device is still too hot after `timeout_s`, or cannot be reached.
    """
    end = time.monotonic() + timeout_s
    while True:
        found = cast("float | None", device.conditions()["temperature_c"])
        if found is None:
            raise UsageError(
                f"{device.uri} has no temperature sensor that can be read.",
                remedy="Use --cool-down in place of --wait-below.",
            )
        if found < celsius:
            return
        if time.monotonic() + POLL_S > end:
            raise RuntimeFailedError(
                f"{device.uri} was at {found:.1f} \N{DEGREE SIGN}C after waiting {timeout_s:g} s; "
                f"--wait-below is {celsius:g} \N{DEGREE SIGN}C.",
                remedy="Cool it, or raise --wait-below or --timeout.",
            )
        time.sleep(POLL_S)
