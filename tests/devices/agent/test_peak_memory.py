"""`PeakMemory` measures the peak since its construction."""

import sys
from types import SimpleNamespace

import pytest

from mobiledeploy.devices.agent import timing
from mobiledeploy.devices.agent.timing import PeakMemory

MIB = 2**20


def touch(mebibytes):
    """Allocate memory, write to every page of it, free it."""
    block = bytearray(mebibytes * MIB)
    for offset in range(0, len(block), 4096):
        block[offset] = 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset the peak")
def test_a_peak_is_remembered_after_memory_is_freed():
    peak = PeakMemory()
    touch(64)
    assert 60 * MIB <= peak.added_bytes() <= 80 * MIB


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset the peak")
def test_an_earlier_peak_does_not_count():
    touch(96)
    assert PeakMemory().added_bytes() < 8 * MIB


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset the peak")
def test_a_peak_counts_even_if_an_earlier_one_was_larger():
    touch(128)
    peak = PeakMemory()
    touch(64)
    assert 60 * MIB <= peak.added_bytes() <= 80 * MIB


def test_no_allocation_adds_almost_nothing():
    assert 0 <= PeakMemory().added_bytes() < 8 * MIB


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_without_proc_the_peak_of_the_whole_process_is_used(monkeypatch, tmp_path, platform, unit):
    peaks = iter([1000, 5000])
    monkeypatch.setattr(timing.sys, "platform", platform)
    monkeypatch.setattr(
        timing.resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=next(peaks))
    )
    assert PeakMemory(str(tmp_path)).added_bytes() == 4000 * unit
