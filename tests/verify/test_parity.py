"""The gate: what differs in one logit fails, and comparing nothing never passes."""

import math

import numpy as np
import pytest

from mobiledeploy.errors import DataError, GateError
from mobiledeploy.types import ParityReport
from mobiledeploy.verify.parity import Tolerances, compare, require

STEP = 0.125


def on_grid(samples=20, classes=10, seed=0):
    """Return logits as an int8 network makes them: whole numbers of steps."""
    codes = np.random.default_rng(seed).integers(-100, 100, (samples, classes))
    return (codes * STEP).astype(np.float32)


def compared(float_logits, integer_logits, artifacts, tolerances=None, **options):
    return compare(
        float_logits,
        integer_logits,
        artifacts,
        step=STEP,
        tolerances=tolerances or Tolerances(),
        data_source="numbers",
        **options,
    )


def rungs(report, kind):
    return {(r.reference, r.candidate): r for r in report.rungs if r.kind == kind}


def test_equal_encodings_of_a_good_network_pass():
    logits = on_grid()
    report = compared(logits, logits, {"a.onnx": logits.copy(), "a.pte": logits.copy()})
    assert report.passed
    require(report)
    assert set(rungs(report, "format")) == {
        ("integer reference", "a.onnx"),
        ("integer reference", "a.pte"),
        ("a.onnx", "a.pte"),
    }
    assert set(rungs(report, "quantization")) == {
        ("float PyTorch", "a.onnx"),
        ("float PyTorch", "a.pte"),
    }
    assert report.sample_count == 20


def test_one_logit_one_step_off_fails_the_format_rung_and_is_named():
    logits = on_grid()
    off = logits.copy()
    off[3, 4] += STEP
    report = compared(logits, logits, {"a.onnx": logits, "a.pte": off})
    assert not report.passed
    failed = {key for key, rung in rungs(report, "format").items() if not rung.passed}
    assert failed == {("integer reference", "a.pte"), ("a.onnx", "a.pte")}
    assert all(rung.passed for rung in rungs(report, "quantization").values())
    with pytest.raises(GateError, match=r"a\.pte: 1 of 200 logits differ .* 1 steps") as caught:
        require(report)
    assert "a.onnx: " not in caught.value.message
    assert caught.value.exit_code == 1


def test_two_artifacts_that_agree_with_one_another_but_not_with_the_reference_fail():
    logits = on_grid()
    other = logits + np.float32(STEP)
    report = compared(logits, logits, {"a.onnx": other, "a.pte": other})
    assert rungs(report, "format")["a.onnx", "a.pte"].passed
    assert not report.passed


def test_every_pair_of_artifacts_is_compared():
    logits = on_grid()
    report = compared(logits, logits, dict.fromkeys("abc", logits))
    assert set(rungs(report, "format")) >= {("a", "b"), ("a", "c"), ("b", "c")}


def test_no_artifacts_never_pass():
    for reference in (None, on_grid()):
        report = compared(on_grid(), reference, {})
        assert not report.passed
        with pytest.raises(GateError, match="Nothing was compared"):
            require(report)


def test_no_samples_never_pass():
    nothing = on_grid(samples=0)
    for reference in (None, nothing):
        with pytest.raises(DataError, match="Nothing was compared"):
            compared(nothing, reference, {"a.onnx": nothing})


def test_a_report_without_samples_does_not_pass_whatever_its_rungs_say():
    passed = compared(on_grid(), on_grid(), {"a.onnx": on_grid()})
    empty = ParityReport(rungs=passed.rungs, sample_count=0, data_source="")
    assert passed.passed
    assert not empty.passed


@pytest.mark.parametrize("poison", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["float", "integer", "artifact"])
def test_logits_that_are_not_finite_raise_wherever_they_are(poison, where):
    given = {name: on_grid() for name in ("float", "integer", "artifact")}
    given[where][0, 0] = poison
    with pytest.raises(GateError, match="NaN or infinite"):
        compared(given["float"], given["integer"], {"a.onnx": given["artifact"]})


def test_nan_on_both_sides_is_not_equality():
    logits = on_grid()
    logits[0, 0] = math.nan
    with pytest.raises(GateError):
        compared(on_grid(), logits, {"a.onnx": logits.copy()})


def test_logits_of_another_shape_raise():
    with pytest.raises(DataError, match="unlike shapes"):
        compared(on_grid(), on_grid(), {"a.onnx": on_grid(classes=9)})


def with_noise_of(decibels, logits):
    noise = np.random.default_rng(1).normal(size=logits.shape)
    noise *= np.sqrt(np.square(logits).sum() / np.square(noise).sum()) * 10 ** (-decibels / 20)
    return (logits + noise).astype(np.float32)


def test_too_much_quantization_noise_fails_the_quantization_rung_only():
    exact = on_grid()
    integer = with_noise_of(20, exact)
    limit = Tolerances(min_sqnr_db=21, min_agreement=0)
    report = compared(exact, integer, {"a.onnx": integer}, limit)
    assert rungs(report, "format")["integer reference", "a.onnx"].passed
    (failure,) = rungs(report, "quantization")["float PyTorch", "a.onnx"].failures
    assert failure.startswith("sqnr_db against float PyTorch is 20.0")
    assert not report.passed
    assert compared(
        exact, integer, {"a": integer}, Tolerances(min_sqnr_db=19, min_agreement=0)
    ).passed


def test_too_many_changed_classes_fail_the_quantization_rung_only():
    exact = on_grid()
    integer = exact.copy()
    for row in range(4):  # of 20: agreement 0.8
        integer[row, (exact[row].argmax() + 1) % 10] = exact[row].max() + STEP
    report = compared(exact, integer, {"a": integer}, Tolerances(min_sqnr_db=0, min_agreement=0.81))
    (failure,) = rungs(report, "quantization")["float PyTorch", "a"].failures
    assert failure.startswith("agreement against float PyTorch is 0.800; expected at least 0.81")
    assert not report.passed
    limit = Tolerances(min_sqnr_db=0, min_agreement=0.8)
    assert compared(exact, integer, {"a": integer}, limit).passed


def test_random_weights_are_shown_but_not_judged_except_for_format():
    exact, integer = on_grid(), on_grid(seed=5)
    report = compared(exact, integer, {"a": integer}, ungated="random weights")
    loss = rungs(report, "quantization")["float PyTorch", "a"]
    assert report.passed
    assert not loss.gated
    assert loss.note == "random weights"
    assert loss.metrics["sqnr_db"] < 12
    off = integer.copy()
    off[0, 0] += STEP
    assert not compared(exact, integer, {"a": off}, ungated="random weights").passed


def test_a_float_artifact_is_held_to_float_rounding():
    exact = on_grid()
    rounding, lossy = with_noise_of(100, exact), with_noise_of(40, exact)
    report = compared(exact, None, {"a.onnx": rounding})
    assert report.passed
    assert list(rungs(report, "format")) == [("float PyTorch", "a.onnx")]
    assert not rungs(report, "quantization")
    with pytest.raises(GateError, match=r"a\.onnx: sqnr_db .* is 40\.0.*; expected at least 60"):
        require(compared(exact, None, {"a.onnx": lossy}))
