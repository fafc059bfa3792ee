"""What two sets of outputs are compared by, for each task."""

import math

import numpy as np
import pytest

from mobiledeploy.parity.compare import compare_logits, missed_limits

OF_CLASSES = {"top1_agreement", "top5_agreement", "flips", "worst_flip_margin", "kl_divergence"}


def outputs(size=3, samples=20, seed=0):
    return np.random.default_rng(seed).normal(size=(samples, size)).astype(np.float32)


@pytest.mark.parametrize("task", ["regression", "embedding"])
def test_outputs_that_are_no_classes_have_no_agreement(task):
    assert compare_logits(outputs(), outputs(seed=1)).keys() >= OF_CLASSES
    assert not OF_CLASSES & compare_logits(outputs(), outputs(seed=1), task=task).keys()


def test_one_output_has_no_agreement_whatever_its_task():
    assert not OF_CLASSES & compare_logits(outputs(1), outputs(1, seed=1), task="classes").keys()


def test_the_worst_output_of_a_regression_and_the_constant_ones_are_found():
    reference = outputs()
    reference[:, 0] *= 1000
    reference[:, 2] = 5
    candidate = reference + np.float32(0.5)
    found = compare_logits(reference, candidate, task="regression")
    assert (found["lowest_output"], found["constant_outputs"]) == (1, 1)
    assert found["lowest_output_sqnr_db"] < 10
    assert found["sqnr_db"] > 50


def test_a_regression_of_constants_has_no_sqnr_at_all():
    constant = np.full((20, 3), 5, np.float32)
    found = compare_logits(constant, constant, task="regression")
    assert found["constant_outputs"] == 3
    assert not {"sqnr_db", "lowest_output", "lowest_output_sqnr_db"} & found.keys()


@pytest.mark.parametrize("reference", [outputs(samples=1), np.ones((20, 3), np.float32)])
def test_a_limit_on_an_sqnr_that_is_undefined_is_missed(reference):
    found = compare_logits(reference, reference)
    (text,) = missed_limits(found, {"min_sqnr_db": -100.0})
    assert text.startswith("SQNR is undefined: there is only one image, or")


def test_a_limit_on_the_agreement_of_no_classes_is_missed():
    found = compare_logits(outputs(), outputs(), task="regression")
    assert found["sqnr_db"] == math.inf
    (text,) = missed_limits(found, {"min_top1_agreement": 0.5})
    assert text == "top-1 agreement is undefined: the outputs are no classes."
