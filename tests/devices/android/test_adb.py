"""Choosing a phone among those that adb lists."""

import pytest

from mobiledeploy.devices.android.adb import choose
from mobiledeploy.errors import RuntimeFailedError


@pytest.mark.parametrize(
    ("phones", "wanted", "chosen"),
    [
        ({"A": "device"}, "", "A"),
        ({"A": "device", "B": "device"}, "B", "B"),
        ({"A": "offline", "B": "device"}, "B", "B"),
    ],
)
def test_the_requested_or_the_only_phone_is_chosen(phones, wanted, chosen):
    assert choose(phones, wanted) == chosen


def test_missing_permissions_have_their_own_remedy():
    with pytest.raises(RuntimeFailedError, match="phone A is 'no permissions'") as caught:
        choose({"A": "no permissions"}, "")
    assert "udev" in caught.value.remedy
