"""Waiting for a cool device."""

import pytest

from mobiledeploy.bench import temperature
from mobiledeploy.bench.temperature import wait_until_below
from mobiledeploy.errors import RuntimeFailedError, UsageError


class Cooling:
    """A device whose temperature falls by a degree each time that it is read."""

    uri = "adb://"

    def __init__(self, celsius):
        self.celsius = celsius
        self.reads = 0

    def conditions(self):
        self.reads += 1
        if self.celsius is not None:
            self.celsius -= 1
        return {"temperature_c": self.celsius}


@pytest.fixture
def pauses(monkeypatch):
    """A clock that `sleep` moves on; the pauses that were made."""
    made = []
    monkeypatch.setattr(temperature.time, "sleep", made.append)
    monkeypatch.setattr(temperature.time, "monotonic", lambda: sum(made))
    return made


def test_it_polls_until_the_device_is_below(pauses):
    device = Cooling(40)
    wait_until_below(device, 37, timeout_s=600)
    assert (device.reads, device.celsius) == (4, 36)
    assert pauses == [5, 5, 5]


def test_a_cool_device_is_not_waited_for(pauses):
    wait_until_below(Cooling(30), 37, timeout_s=600)
    assert pauses == []


def test_a_device_that_stays_hot_is_an_error_after_the_timeout(pauses):
    with pytest.raises(RuntimeFailedError, match=r"was at 86\.0 .C after waiting 20 s") as caught:
        wait_until_below(Cooling(91), 37, timeout_s=20)
    assert sum(pauses) == 20
    assert "raise --wait-below or --timeout" in caught.value.remedy


def test_a_device_without_a_sensor_is_an_error(pauses):
    with pytest.raises(UsageError, match=r"adb:// has no temperature sensor") as caught:
        wait_until_below(Cooling(None), 37, timeout_s=600)
    assert "--cool-down" in caught.value.remedy
    assert pauses == []
