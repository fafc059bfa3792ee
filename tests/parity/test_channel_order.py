"""Images that look like BGR: only a clear preference of the network counts."""

import numpy as np

from mobiledeploy.parity.channel_order import reversed_channels


def logits(sure):
    """Return logits of two classes whose margin is `sure`, one row each."""
    sure = np.asarray(sure, np.float32)
    return np.stack([sure, np.zeros_like(sure)], axis=1)


def test_a_clear_preference_for_reversed_channels_is_reported_with_its_numbers():
    plain, swapped = logits([1] * 28 + [2] * 4), logits([2] * 28 + [1] * 4)
    text = reversed_channels(plain, swapped, None)
    assert "larger logits on 28 images only with reversed channels, and on 4" in text
    assert "BGR" in text


def test_labels_decide_where_they_are_known():
    plain, swapped = logits([1] * 32), logits([2] * 32)
    assert reversed_channels(plain, swapped, [0] * 32) == ""
    wrong = logits([-1] * 32)
    text = reversed_channels(wrong, plain, [0] * 32)
    assert "is right on 32 images only with reversed channels, and on 0" in text
    assert reversed_channels(plain, wrong, [0] * 32) == ""


def test_a_preference_for_the_given_channels_is_fine():
    assert reversed_channels(logits([2] * 32), logits([1] * 32), None) == ""


def test_a_preference_that_may_be_chance_is_not_reported():
    # 9 of 9 tosses: 1 in 512; 10 of 10: 1 in 1024
    assert reversed_channels(logits([1] * 9), logits([2] * 9), None) == ""
    assert reversed_channels(logits([1] * 10), logits([2] * 10), None) != ""


def test_grey_images_show_no_preference():
    grey = logits([1.0] * 50)
    assert reversed_channels(grey, grey, None) == ""


def test_large_logits_do_not_overflow():
    assert "BGR" in reversed_channels(logits([1e4] * 20), logits([2e4] * 20), None)
