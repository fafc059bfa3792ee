"""Codes of one layer: which differences float rounding explains, and which it does not."""

import numpy as np
import pytest

from mobiledeploy.parity.layer_codes import compare_codes, explain

EXPECTED = np.arange(-6, 6, dtype=np.int8).reshape(3, 4)
LIMIT = 0.001


def compare(found, half_way=0.5, limit=LIMIT):
    distances = np.full(EXPECTED.shape, half_way, np.float32)
    return compare_codes("conv", EXPECTED, found, distances, limit)


def off_by(steps):
    found = EXPECTED.copy()
    found[1, 2] += steps
    return found


def test_equal_codes_are_equal_in_any_shape_that_holds_them():
    assert compare(EXPECTED.reshape(3, 2, 2)).differing == 0


@pytest.mark.parametrize("steps", [1, -1])
def test_one_step_next_to_half_way_is_rounding_and_nowhere_else(steps):
    assert compare(off_by(steps), half_way=0.0005).unexplained == 0
    assert compare(off_by(steps), half_way=0.0005).differing == 1
    assert compare(off_by(steps), half_way=0.002).unexplained == 1


def test_two_steps_are_never_rounding():
    layer = compare(off_by(2), half_way=0.0)
    assert (layer.unexplained, layer.max_difference) == (1, 2)


def test_without_a_limit_every_difference_is_unexplained():
    assert compare(off_by(1), half_way=0.0, limit=None).unexplained == 1


def test_differences_do_not_wrap_around():
    expected = np.array([-128], np.int8)
    layer = compare_codes(
        "conv", expected, np.array([127], np.int8), np.zeros(1, np.float32), LIMIT
    )
    assert (layer.unexplained, layer.max_difference) == (1, 255)


def test_codes_of_another_size_are_all_wrong():
    layer = compare(EXPECTED[:2])
    assert layer.unexplained == layer.differing == layer.codes == 12


def test_batches_add_up():
    both = compare(EXPECTED).plus(compare(off_by(2)))
    assert (both.codes, both.differing, both.unexplained, both.max_difference) == (24, 1, 1, 2)
    assert both.name == "conv"


def test_the_first_differing_layer_is_named_and_all_are_counted():
    good, bad = compare(EXPECTED), compare(off_by(3))
    text = explain([good, bad, bad])
    assert "is conv: 1 of 12 codes differ, by up to 3" in text
    assert "(2 of 3 layers differ)" in text
    assert explain([good, good]) == ""
