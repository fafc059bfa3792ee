"""Interleaved timing, seen through fake networks that log their runs."""

import gc
import itertools
from collections import Counter

import pytest

from mobiledeploy.devices.agent.timing import interleaved


class Machine:
    """A fake clock and networks that take a known time; the first run of a turn is slower."""

    def __init__(self, costs_ms=(1, 2, 3), cold_ms=100):
        self.now_ns = 0
        self.log = []
        self.cold_ms = cold_ms
        self.runs = [self._network(index, cost) for index, cost in enumerate(costs_ms)]

    def _network(self, index, cost_ms):
        def run():
            cold = not self.log or self.log[-1] != index
            self.log.append(index)
            self.now_ns += int(1e6 * (self.cold_ms if cold else cost_ms))

        return run

    def clock_ns(self):
        return self.now_ns

    def measure(self, **options):
        options = {"rounds": 20, "warmup": 0} | options
        return interleaved(self.runs, clock_ns=self.clock_ns, **options)

    def turns(self):
        """The networks in the order of their turns."""
        assert self.log[0::2] == self.log[1::2]
        return self.log[0::2]


def test_each_network_is_timed_once_per_round():
    times = Machine().measure(rounds=7)
    assert [len(t) for t in times] == [7, 7, 7]


def test_the_second_inference_of_a_turn_is_timed():
    # A network whose turn follows its own turn is not cold, but runs twice as well.
    machine = Machine(costs_ms=(1, 2))
    assert machine.measure() == [[1.0] * 20, [2.0] * 20]
    assert len(machine.log) == 2 * 2 * 20


def test_every_round_is_shuffled():
    machine = Machine()
    machine.measure(rounds=30)
    turns = machine.turns()
    rounds = [tuple(turns[i : i + 3]) for i in range(0, len(turns), 3)]
    assert all(sorted(order) == [0, 1, 2] for order in rounds)
    assert len(set(rounds)) == 6


def test_every_position_and_predecessor_is_equally_frequent():
    machine = Machine()
    machine.measure(rounds=300)
    turns = machine.turns()
    for place in range(3):
        places = Counter(turns[place::3])
        assert all(70 < places[network] < 130 for network in range(3))
    neighbours = Counter(itertools.pairwise(turns))
    for a in range(3):
        for b in range(3):
            if a != b:
                assert neighbours[a, b] > 70


@pytest.mark.ci
def test_the_order_depends_on_the_seed():
    def turns(seed):
        machine = Machine()
        machine.measure(seed=seed)
        return machine.turns()

    assert turns(1) == turns(1) != turns(2)


def test_warm_up_rounds_run_but_are_not_timed():
    machine = Machine()
    times = machine.measure(rounds=5, warmup=3)
    assert len(machine.turns()) == 3 * (5 + 3)
    assert [len(t) for t in times] == [5, 5, 5]


def test_warm_up_time_is_not_part_of_the_duration():
    machine = Machine(costs_ms=(1,), cold_ms=1)
    (times,) = machine.measure(warmup=1000, duration_s=0.1)
    assert len(times) == 50  # 100 ms of turns of two inferences of 1 ms


def test_a_duration_replaces_the_number_of_rounds():
    machine = Machine(costs_ms=(10,), cold_ms=10)
    (times,) = machine.measure(rounds=1, duration_s=1.0)
    assert len(times) == 50


def test_a_short_duration_still_gives_two_rounds():
    (times,) = Machine(costs_ms=(1000,)).measure(duration_s=0.001)
    assert len(times) == 2


def test_after_round_gets_the_number_of_timed_rounds():
    rounds_done = []
    Machine().measure(rounds=3, warmup=2, after_round=rounds_done.append)
    assert rounds_done == [0, 0, 1, 2, 3]


@pytest.mark.parametrize("was_on", [True, False])
def test_the_garbage_collector_is_off_while_timing(was_on):
    before = gc.isenabled()
    seen = []
    (gc.enable if was_on else gc.disable)()
    try:
        interleaved([lambda: seen.append(gc.isenabled())], rounds=2, warmup=0)
        after = gc.isenabled()
    finally:
        (gc.enable if before else gc.disable)()
    assert set(seen) == {False}
    assert after is was_on


def test_the_garbage_collector_is_restored_after_a_failure():
    def fail():
        raise RuntimeError

    assert gc.isenabled()
    with pytest.raises(RuntimeError):
        interleaved([fail], rounds=1, warmup=0)
    assert gc.isenabled()


def test_times_are_in_milliseconds():
    import time

    (times,) = interleaved([lambda: time.sleep(0.02)], rounds=2, warmup=0)
    assert all(20 <= t < 5000 for t in times)
