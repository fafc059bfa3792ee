"""Peak memory is that of the work, not of what came before it."""

import sys
from types import SimpleNamespace

import pytest

from mobiledeploy.devices.agent import timing
from mobiledeploy.devices.agent.timing import PeakMemory

MIB = 2**20


def touch(mebibytes):
    """Allocate memory, write to every page of it, give it back."""
    block = bytearray(mebibytes * MIB)
    for offset in range(0, len(block), 4096):
        block[offset] = 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset the peak")
def test_a_peak_counts_after_it_has_passed():
    peak = PeakMemory()
    touch(64)
    assert 60 * MIB <= peak.added_bytes() <= 80 * MIB


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset the peak")
def test_a_peak_that_came_before_does_not_count():
    touch(96)
    assert PeakMemory().added_bytes() < 8 * MIB


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset the peak")
def test_a_peak_counts_in_the_shadow_of_a_larger_one():
    touch(128)
    peak = PeakMemory()
    touch(64)
    assert 60 * MIB <= peak.added_bytes() <= 80 * MIB


def test_nothing_adds_next_to_nothing():
    assert 0 <= PeakMemory().added_bytes() < 8 * MIB


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_without_proc_the_process_s_peak_is_taken(monkeypatch, tmp_path, platform, op):
    peaks = iter([1000, 5000])
    monkeypatch.setattr(timing.sys, "platform", platform)
    monkeypatch.setattr(
        timing.resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=next(peaks))
    )
    assert PeakMemory(str(tmp_path)).added_bytes() == 4000 * op
