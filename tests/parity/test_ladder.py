"""The ladder: one differing logit fails its rung, and comparing nothing never passes."""

import math

import numpy as np
import pytest

from mobiledeploy.errors import GateError
from mobiledeploy.parity.compare import compare_logits, missed_limits
from mobiledeploy.parity.ladder import EXACT, CalibrationCheck, Check, Ladder, require_passed
from mobiledeploy.parity.types import ComparedArtifact, DataUsed, ParityReport

STEP = 0.125


def with_(model, **changes):
    return model.model_copy(update=changes)


def on_grid(samples=20, classes=10, seed=0):
    """Return logits as an int8 network makes them: whole numbers of steps."""
    codes = np.random.default_rng(seed).integers(-100, 100, (samples, classes))
    return (codes * STEP).astype(np.float32)


def with_noise_of(decibels, logits):
    noise = np.random.default_rng(1).normal(size=logits.shape)
    power = np.square(logits - logits.mean(0)).sum() / np.square(noise).sum()
    noise *= np.sqrt(power) * 10 ** (-decibels / 20)
    return (logits + noise).astype(np.float32)


def make_ladder(exact=None, integers=None, artifacts=None, *, labels=None, note="", limits=None):
    """Return a ladder as `run_ladder` builds it."""
    ladder = Ladder(labels=labels, step=STEP)
    exact = on_grid() if exact is None else exact
    ladder.add("float", exact)
    ladder.add("fold", exact, [Check("float", {"min_sqnr_db": 80})])
    integers = exact if integers is None else integers
    ladder.add("integers", integers, [Check("float", limits or {})], note=note)
    for name, logits in (artifacts or {}).items():
        checks = [Check("onnx", {}, "a.onnx"), Check("integers", EXACT), Check("float")]
        ladder.add(name.split(".")[1], logits, checks, artifact=name)
    return ladder


def report(ladder, count=20):
    data = DataUsed(source="numbers", count=count, sha256="", labelled=False, calibration=False)
    names = {rung.artifact for rung in ladder.rungs if rung.artifact}
    return ParityReport(
        network="numbers",
        precision="int8",
        data=data,
        artifacts=tuple(
            ComparedArtifact(file=name, sha256="0" * 64, size_bytes=1, runtime="none")
            for name in names
        ),
        rungs=tuple(ladder.rungs),
    )


def rung(ladder, name):
    (found,) = [r for r in ladder.rungs if r.name == name]
    return found


def test_a_network_whose_artifacts_are_equal_passes():
    logits = on_grid()
    found = report(make_ladder(artifacts={"a.onnx": logits.copy(), "a.pte": logits.copy()}))
    assert found.passed
    assert found.first_failure is None
    require_passed(found)


def test_what_is_worse_than_the_baseline_fails_although_every_rung_passed():
    found = report(make_ladder(artifacts={"a.onnx": on_grid()}))
    require_passed(with_(found, regressions=()))
    with pytest.raises(GateError, match=r"Worse than the baseline\. onnx: it fell\.") as caught:
        require_passed(with_(found, regressions=("onnx: it fell.",)))
    assert "store a new baseline" in caught.value.remedy


def test_an_artifact_is_compared_with_the_rung_below_the_integers_and_float():
    logits = on_grid()
    ladder = make_ladder(artifacts={"a.onnx": logits, "a.pte": logits})
    assert [c.reference for c in rung(ladder, "pte").comparisons] == ["onnx", "integers", "float"]
    assert [c.reference for c in rung(ladder, "fold").comparisons] == ["float"]


def test_one_logit_one_step_off_fails_its_rung_only_and_is_counted():
    logits = on_grid()
    off = logits.copy()
    off[3, 4] += STEP
    found = report(make_ladder(artifacts={"a.onnx": logits, "a.pte": off}))
    assert [r.name for r in found.rungs if not r.passed] == ["pte"]
    with pytest.raises(GateError, match=r"at the rung 'pte'.*1 of 200 logits .* 1 steps") as caught:
        require_passed(found)
    assert "a.onnx" not in caught.value.message
    assert caught.value.exit_code == 1


def test_two_artifacts_that_agree_with_one_another_but_not_with_the_reference_fail():
    other = on_grid() + np.float32(STEP)
    ladder = make_ladder(artifacts={"a.onnx": other, "a.pte": other})
    assert rung(ladder, "pte").against("onnx").metrics["differing_logits"] == 0
    assert not report(ladder).passed


def test_a_rewrite_that_is_more_than_rounding_fails_at_its_own_rung():
    exact = on_grid()
    ladder = Ladder(labels=None, step=STEP)
    ladder.add("float", exact)
    ladder.add("fold", with_noise_of(60, exact), [Check("float", {"min_sqnr_db": 80})])
    (failure,) = rung(ladder, "fold").failures
    assert failure == "Against float PyTorch: SQNR is 60 dB; expected at least 80 dB."


def test_failures_on_calibration_images_say_so():
    exact = on_grid()
    ladder = make_ladder()
    calibration = CalibrationCheck("fold", exact, with_noise_of(40, exact), {"min_sqnr_db": 80})
    ladder.add("equalize", exact, [Check("fold")], calibration_check=calibration, note="random")
    (failure,) = rung(ladder, "equalize").failures
    assert failure.startswith("On calibration images: Against BatchNorm folded: SQNR")
    assert rung(ladder, "equalize").against("fold").metrics["differing_logits"] == 0


def test_no_artifact_never_passes():
    found = report(make_ladder())
    assert not found.passed
    with pytest.raises(GateError, match="Nothing was compared"):
        require_passed(found)


def test_an_artifact_that_was_compared_with_nothing_never_passes():
    ladder = make_ladder()
    ladder.add("onnx", on_grid(), [], artifact="a.onnx")
    assert not report(ladder).passed


def test_no_image_never_passes():
    ladder = make_ladder(on_grid(samples=0), on_grid(samples=0), {"a.onnx": on_grid(samples=0)})
    assert not report(ladder, count=0).passed
    assert all("Nothing was compared" in r.failures[0] for r in ladder.rungs)
    good = report(make_ladder(artifacts={"a.onnx": on_grid()}))
    assert good.passed
    assert not with_(good, data=with_(good.data, count=0)).passed


@pytest.mark.parametrize("poison", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["float", "integers", "onnx"])
def test_logits_that_are_not_finite_fail_at_their_rung(poison, where):
    given = {name: on_grid() for name in ("float", "integers", "onnx")}
    given[where][0, 0] = poison
    found = report(make_ladder(given["float"], given["integers"], {"a.onnx": given["onnx"]}))
    named = "float" if where == "float" else where
    assert found.first_failed_rung.name == named
    assert found.first_failed_rung.failures[0] == "1 of 200 logits are NaN or infinite."


def test_nan_on_both_sides_is_not_equality():
    logits = on_grid()
    logits[0, 0] = math.nan
    ladder = make_ladder(on_grid(), logits, {"a.onnx": logits.copy()})
    assert not rung(ladder, "onnx").passed


def test_a_rung_with_limits_against_one_without_logits_fails():
    bad = on_grid()
    bad[0, 0] = math.nan
    ladder = make_ladder(on_grid(), bad, {"a.onnx": on_grid()})
    assert "integer reference has no logits" in rung(ladder, "onnx").failures[0]


def test_logits_of_another_shape_fail_their_rung():
    ladder = make_ladder(artifacts={"a.onnx": on_grid(classes=9)})
    assert "different shapes" in rung(ladder, "onnx").failures[0]


def test_too_much_quantization_noise_fails_the_integers_only():
    exact = on_grid()
    integers = with_noise_of(20, exact)
    artifacts = {"a.onnx": integers}
    found = report(make_ladder(exact, integers, artifacts, limits={"min_sqnr_db": 21}))
    assert [r.name for r in found.rungs if not r.passed] == ["integers"]
    assert "SQNR is 20 dB; expected at least 21 dB" in found.first_failed_rung.failures[0]
    assert report(make_ladder(exact, integers, artifacts, limits={"min_sqnr_db": 19})).passed


def test_too_many_changed_classes_fail_the_integers():
    exact = on_grid()
    integers = exact.copy()
    for row in range(4):
        integers[row, (exact[row].argmax() + 1) % 10] = exact[row].max() + STEP
    limits = {"min_top1_agreement": 0.81}
    ladder = make_ladder(exact, integers, {"a.onnx": integers}, limits=limits)
    (failure,) = rung(ladder, "integers").failures
    assert failure.endswith("top-1 agreement is 0.8; expected at least 0.81.")
    with pytest.raises(GateError) as failed:
        require_passed(report(ladder))
    assert "--task regression" in failed.value.remedy
    metrics = rung(ladder, "integers").against("float").metrics
    assert metrics["top1_agreement_low"] < 0.8 < metrics["top1_agreement_high"]
    assert metrics["flips"] == 4


def test_with_random_weights_only_equality_is_required():
    exact, integers = on_grid(), on_grid(seed=5)
    limits = {"min_sqnr_db": 12}
    passing = make_ladder(exact, integers, {"a.onnx": integers}, note="random", limits=limits)
    assert report(passing).passed
    assert rung(passing, "integers").against("float").metrics["sqnr_db"] < 12
    assert rung(passing, "integers").note == "random"
    off = integers.copy()
    off[0, 0] += STEP
    failing = make_ladder(exact, integers, {"a.onnx": off}, note="random", limits=limits)
    assert not report(failing).passed


def test_accuracy_is_reported_with_labels():
    exact = on_grid()
    labels = exact.argmax(1)
    labels[0] = (labels[0] + 1) % 10
    ladder = make_ladder(exact, labels=labels.tolist())
    assert rung(ladder, "float").accuracy == pytest.approx(0.95)
    assert rung(make_ladder(exact), "float").accuracy is None


def test_zero_logits_have_every_metric_but_the_cosine():
    zeros = np.zeros((2, 3), np.float32)
    found = compare_logits(zeros, zeros)
    assert "cosine_similarity" not in found
    assert found["differing_logits"] == 0
    assert "max_steps_apart" not in found
    assert "max_steps_apart" in compare_logits(zeros, zeros, 0.5)


def test_a_limit_on_a_missing_or_nan_metric_is_missed():
    assert missed_limits({}, {"min_sqnr_db": 1})
    assert missed_limits({"sqnr_db": math.nan}, {"min_sqnr_db": 1})
    assert not missed_limits({"sqnr_db": 1.0}, {"min_sqnr_db": 1})
    assert missed_limits({"flips": 2.0}, {"max_flips": 1})
    assert not missed_limits({"flips": 1.0}, {"max_flips": 1})
