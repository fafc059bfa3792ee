"""Big and little cores are told apart by their highest frequencies."""

import pytest
from fake_sys import write_sys

from mobiledeploy.devices.agent.machine import core_mhz
from mobiledeploy.devices.cores import Cores, clusters, named_cores
from mobiledeploy.devices.host import Host
from mobiledeploy.errors import UsageError

PIXEL = (1_803_000, 1_803_000, 1_803_000, 1_803_000, 2_253_000, 2_253_000, 2_850_000, 2_850_000)


def host(max_khz):
    speeds = {core: khz / 1000 for core, khz in enumerate(max_khz)}
    return Host(
        architecture="aarch64", model="", cores=8, features=None, uri="adb://", core_mhz=speeds
    )


@pytest.mark.parametrize(
    ("max_khz", "little", "big"),
    [
        (PIXEL, (0, 1, 2, 3), (4, 5, 6, 7)),
        ((3_500_000, 3_500_000, 4_300_000), (0, 1), (2,)),
        ((2_400_000, 1_500_000), (1,), (0,)),
    ],
)
def test_little_is_the_slowest_cluster_and_big_the_others(max_khz, little, big):
    device = host(max_khz)
    assert named_cores(device, Cores.LITTLE) == little
    assert named_cores(device, Cores.BIG) == big
    assert named_cores(device, Cores.ALL) == ()


def test_clusters_are_sorted_by_their_frequency():
    found = [(cluster.cores, cluster.max_mhz) for cluster in clusters(host(PIXEL).core_mhz)]
    assert found == [((0, 1, 2, 3), 1803), ((4, 5), 2253), ((6, 7), 2850)]


@pytest.mark.parametrize(
    ("max_khz", "message"),
    [
        (
            (2_400_000,) * 4,
            "no big cores that can be told .* all 4 cores reach 2400 MHz",
        ),
        ((), r"does not report the frequencies of its cores \(cpufreq\)"),
    ],
)
def test_a_device_with_one_cluster_has_no_big_cores(max_khz, message):
    with pytest.raises(UsageError, match=message) as caught:
        named_cores(host(max_khz), Cores.BIG)
    assert "--cpu-affinity" in caught.value.remedy
    assert named_cores(host(max_khz), Cores.ALL) == ()


def test_frequencies_are_read_core_by_core(tmp_path):
    write_sys(tmp_path, (1_800_000,) * 10 + (2_500_000,))
    (tmp_path / "sys/devices/system/cpu/cpu3/cpufreq/cpuinfo_max_freq").unlink()
    found = core_mhz(f"{tmp_path}/sys")
    assert found == {**dict.fromkeys("012456789", 1800), "10": 2500}
    assert core_mhz(f"{tmp_path}/nowhere") == {}
