"""The metrics against figures worked out by hand, and against comparisons that must not pass."""

import math

import numpy as np
import pytest

from mobiledeploy import metrics
from mobiledeploy.errors import DataError, GateError

COMPARISONS = [
    metrics.sqnr_db,
    metrics.top1_agreement,
    lambda r, c: metrics.topk_agreement(r, c, k=1),
    lambda r, c: metrics.topk_shares(r, c, k=1),
    metrics.differing_logits,
    lambda r, c: metrics.max_steps_apart(r, c, step=0.5),
    lambda r, c: metrics.mean_steps_apart(r, c, step=0.5),
    metrics.max_abs_difference,
    metrics.mean_abs_difference,
    metrics.cosine_similarity,
    metrics.mean_cosine_similarity,
    metrics.output_sqnr_db,
    metrics.kl_divergence,
    metrics.flip_margins,
    metrics.worst_flip_margin,
    metrics.margin_weighted_flips,
]
EVERY_COMPARISON = pytest.mark.parametrize("compare", COMPARISONS)


def logits(*rows):
    return np.array(rows, np.float32)


def random_logits(samples=20, classes=10, seed=0):
    return np.random.default_rng(seed).normal(size=(samples, classes)).astype(np.float32)


@EVERY_COMPARISON
def test_comparing_nothing_raises(compare):
    with pytest.raises(DataError, match="Nothing was compared"):
        compare(np.empty((0, 10), np.float32), np.empty((0, 10), np.float32))


@EVERY_COMPARISON
def test_different_shapes_raise_even_where_they_would_broadcast(compare):
    with pytest.raises(DataError, match="different shapes"):
        compare(random_logits(samples=2), random_logits(samples=1))


@EVERY_COMPARISON
def test_logits_without_a_sample_axis_raise(compare):
    with pytest.raises(DataError, match=r"\(N, classes\)"):
        compare(np.ones(10, np.float32), np.ones(10, np.float32))


@EVERY_COMPARISON
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("side", ["reference", "candidate"])
def test_one_nan_or_infinity_on_either_side_raises_and_names_the_side(compare, poison, side):
    pair = {"reference": random_logits(), "candidate": random_logits()}
    pair[side][3, 4] = poison
    with pytest.raises(GateError, match=f"1 of 200 logits of the {side}"):
        compare(pair["reference"], pair["candidate"])


def test_sqnr_of_a_tenth_of_noise_is_twenty_db():
    reference, candidate = logits([3, 4], [-3, -4]), logits([3.3, 4.4], [-3.3, -4.4])
    assert metrics.sqnr_db(reference, candidate) == pytest.approx(20, abs=1e-4)


def test_sqnr_takes_the_signal_from_the_reference():
    small, large = logits([1, 0], [-1, 0]), logits([2, 0], [-2, 0])
    assert metrics.sqnr_db(small, large) == 0
    assert metrics.sqnr_db(large, small) == pytest.approx(20 * math.log10(2))


def test_sqnr_does_not_count_a_constant_as_signal_but_as_error():
    reference, candidate = random_logits(), random_logits(seed=1)
    bias = np.linspace(50, 100, 10, dtype=np.float32)
    expected = metrics.sqnr_db(reference, candidate)
    assert metrics.sqnr_db(reference + bias, candidate + bias) == pytest.approx(expected, abs=1e-3)
    assert metrics.sqnr_db(reference, candidate + bias) < expected - 20


def test_sqnr_is_infinite_when_equal():
    same = random_logits()
    assert metrics.sqnr_db(same, same) == math.inf


@pytest.mark.parametrize("reference", [logits([3, 4]), logits([3, 4], [3, 4]), logits([0], [0])])
def test_there_is_no_sqnr_without_images_that_differ(reference):
    for candidate in (reference, reference + 1):
        with pytest.raises(DataError, match="no signal"):
            metrics.sqnr_db(reference, candidate)


def test_the_sqnr_of_each_output_does_not_hide_in_that_of_all():
    reference = logits([100, 0.1, 7], [-100, -0.1, 7])
    candidate = logits([99, 0.2, 7], [-99, -0.2, 7])
    found = metrics.output_sqnr_db(reference, candidate)
    np.testing.assert_allclose(found, [40, 0, np.nan], atol=1e-4)
    assert metrics.sqnr_db(reference, candidate) > 39


def test_one_output_has_no_classes_to_agree_on():
    one = random_logits(classes=1)
    for compare in (
        metrics.top1_agreement,
        lambda r, c: metrics.topk_agreement(r, c, k=1),
        lambda r, _: metrics.top1_accuracy(r, [0] * len(r)),
    ):
        with pytest.raises(DataError, match="One output has no classes"):
            compare(one, one)


def test_the_mean_cosine_weighs_every_image_alike():
    reference, candidate = logits([100, 0], [0, 1]), logits([100, 0], [1, 0])
    assert metrics.mean_cosine_similarity(reference, candidate) == pytest.approx(0.5)
    assert metrics.cosine_similarity(reference, candidate) > 0.99
    with pytest.raises(DataError, match="zero"):
        metrics.mean_cosine_similarity(logits([0, 0]), logits([1, 0]))


def test_differences_are_taken_in_float64():
    reference = logits([1e8, 0], [-1e8, 0])
    candidate = np.array([[1e8, 1e-4], [-1e8, 1e-4]], np.float32)
    assert metrics.sqnr_db(reference, candidate) == pytest.approx(240, abs=0.01)


def test_top1_agreement_counts_samples():
    reference = logits([0, 1], [0, 1], [1, 0], [1, 0])
    candidate = logits([0, 5], [5, 0], [9, 8], [3, 0])
    assert metrics.top1_agreement(reference, candidate) == 0.75


def test_topk_agreement_ignores_order_within_the_k():
    reference = logits([5, 4, 3, 2, 1])
    assert metrics.topk_agreement(reference, logits([4, 5, 3, 2, 1]), k=2) == 1
    assert metrics.topk_agreement(reference, logits([5, 0, 4, 0, 0]), k=2) == 0.5


def test_topk_agreement_takes_the_lower_class_among_equals():
    assert metrics.topk_agreement(logits([1, 1, 1]), logits([2, 1, 0]), k=2) == 1


@pytest.mark.parametrize("k", [0, 11])
def test_topk_needs_that_many_classes(k):
    with pytest.raises(DataError, match=f"top {k} is undefined for 10 classes"):
        metrics.topk_agreement(random_logits(), random_logits(), k=k)


def test_top1_accuracy_counts_labels():
    assert metrics.top1_accuracy(logits([0, 1], [1, 0], [1, 0]), [1, 0, 1]) == pytest.approx(2 / 3)


def test_top1_accuracy_refuses_labels_that_cannot_be_right():
    with pytest.raises(DataError, match="Expected 2 labels, one per sample"):
        metrics.top1_accuracy(logits([0, 1], [1, 0]), [1])
    with pytest.raises(DataError, match="classes 0 to 1"):
        metrics.top1_accuracy(logits([0, 1], [1, 0]), [1, 2])
    with pytest.raises(DataError, match="from -1 to 0"):
        metrics.top1_accuracy(logits([0, 1], [1, 0]), [-1, 0])


def test_differing_logits_counts_the_last_bit():
    reference = random_logits()
    candidate = reference.copy()
    candidate[0, 0] = np.nextafter(candidate[0, 0], np.float32(9))
    assert metrics.differing_logits(reference, reference) == 0
    assert metrics.differing_logits(reference, candidate) == 1


def test_steps_are_in_units_of_the_output_scale():
    reference, candidate = logits([0, 1, 0.5]), logits([0, 0.5, 0.25])
    assert metrics.max_steps_apart(reference, candidate, step=0.25) == 2
    assert metrics.mean_steps_apart(reference, candidate, step=0.25) == 1


@pytest.mark.parametrize("step", [0, -1, math.nan, math.inf])
def test_a_step_that_is_not_a_scale_raises(step):
    with pytest.raises(DataError, match="expected a scale above 0"):
        metrics.max_steps_apart(random_logits(), random_logits(), step=step)


def test_differences_are_absolute():
    reference, candidate = logits([0, 0], [0, 0]), logits([-3, 1], [0, 0])
    assert metrics.max_abs_difference(reference, candidate) == 3
    assert metrics.mean_abs_difference(reference, candidate) == 1


def test_cosine_is_blind_to_scale_but_not_to_direction():
    reference = random_logits()
    assert metrics.cosine_similarity(reference, 3 * reference) == pytest.approx(1)
    assert metrics.cosine_similarity(reference, -reference) == pytest.approx(-1)
    assert metrics.cosine_similarity(logits([1, 0]), logits([0, 1])) == 0


def test_cosine_of_silence_raises():
    with pytest.raises(DataError, match="similarity is undefined"):
        metrics.cosine_similarity(logits([0, 0]), logits([0, 1]))


def test_kl_divergence_of_two_coins():
    fair, loaded = logits([0, 0]), logits([math.log(3), 0])
    expected = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert metrics.kl_divergence(fair, loaded) == pytest.approx(expected)
    assert metrics.kl_divergence(loaded, fair) == pytest.approx(
        0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    )


def test_kl_divergence_survives_large_logits_and_ignores_a_common_offset():
    reference = random_logits() + 5000
    assert metrics.kl_divergence(reference, reference + 7000) == pytest.approx(0, abs=1e-6)


def test_flips_carry_the_margin_of_the_reference():
    reference = logits([5, 0, 4], [1, 0.75, 0], [3, 2, 1])
    candidate = logits([0, 9, 4], [0, 1, 0], [3, 2, 1])
    assert metrics.flip_margins(reference, candidate).tolist() == [5, 0.25]
    assert metrics.worst_flip_margin(reference, candidate) == 5
    assert metrics.margin_weighted_flips(reference, candidate) == pytest.approx(5.25 / 3)


def test_no_flip_has_no_margin():
    same = random_logits()
    assert metrics.flip_margins(same, same).size == 0
    assert metrics.worst_flip_margin(same, same) == 0
    assert metrics.margin_weighted_flips(same, same) == 0


def test_the_first_of_one_and_all_of_all():
    reference, candidate = random_logits(), random_logits(seed=1)
    top1 = metrics.top1_agreement(reference, candidate)
    assert metrics.topk_agreement(reference, candidate, k=1) == top1 < 1
    assert metrics.topk_agreement(reference, candidate, k=10) == 1
