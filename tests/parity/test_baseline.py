"""The baseline: what got worse is found, and what cannot be compared is refused."""

import copy

import pytest

from mobiledeploy.errors import DataError
from mobiledeploy.parity.baseline import regressions, require_comparable


def document(**changes):
    metrics = {"sqnr_db": 20.0, "top1_agreement": 0.97, "differing_logits": 90}
    exact = {"sqnr_db": None, "top1_agreement": 1.0, "differing_logits": 0}
    rounding = {"sqnr_db": 118.0, "top1_agreement": 1.0, "differing_logits": 70}

    def rung(name, artifact, *comparisons):
        return {
            "name": name,
            "artifact": artifact,
            "passed": True,
            "accuracy": 0.8,
            "comparisons": [
                {
                    "reference": reference,
                    "images": "data",
                    "metrics": dict(figures),
                    "limits": limits,
                }
                for reference, figures, limits in comparisons
            ],
        }

    return copy.deepcopy(
        {
            "schema": 2,
            "kind": "mobiledeploy.parity",
            "network": "net",
            "precision": "int8",
            "data": {"source": "photos", "count": 20, "sha256": "c0"},
            "rungs": [
                rung("fold", "", ("float", rounding, {"min_sqnr_db": 80})),
                rung("integers", "", ("equalize", metrics, {}), ("float", metrics, {})),
                rung(
                    "onnx",
                    "a-int8.onnx",
                    ("onnx-as-written", metrics, {}),
                    ("integers", exact, {"max_differing_logits": 0}),
                ),
            ],
        }
        | changes
    )


FOLD, INTEGERS, ONNX = 0, 1, 2


@pytest.mark.parametrize("rungs", [[], document()["rungs"][:2]])
def test_a_baseline_that_compares_no_artifact_is_refused(rungs):
    with pytest.raises(DataError, match="compared no artifact"):
        regressions(document(rungs=rungs), document())


def changed(rung, against, **metrics):
    report = document()
    report["rungs"][rung]["comparisons"][against]["metrics"] |= metrics
    return report


def test_the_same_report_is_no_worse():
    assert regressions(document(), document()) == ()


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (
            changed(INTEGERS, 1, sqnr_db=19.4),
            "integers: sqnr_db against float went from 20 to 19.4.",
        ),
        (changed(INTEGERS, 1, top1_agreement=0.95), "top1_agreement against float went from 0.97"),
        (
            changed(ONNX, 1, differing_logits=1),
            "differing_logits against integers went from 0 to 1",
        ),
        (changed(ONNX, 1, sqnr_db=50.0), "sqnr_db against integers went from 60 to 50."),
        (changed(FOLD, 0, sqnr_db=40.0), "fold: sqnr_db against float went from 60 to 40."),
        (
            changed(INTEGERS, 1, sqnr_db="-Infinity"),
            "integers: sqnr_db against float went from 20 to -inf.",
        ),
    ],
)
def test_what_got_worse_is_told_with_both_figures(report, said):
    (found,) = regressions(document(), report)
    assert said in found


@pytest.mark.parametrize(
    "report",
    [
        changed(INTEGERS, 1, sqnr_db=19.6),
        changed(INTEGERS, 1, sqnr_db=25.0),
        changed(INTEGERS, 1, top1_agreement=0.965),
    ],
)
def test_better_and_within_the_allowance_is_fine(report):
    assert regressions(document(), report) == ()


@pytest.mark.parametrize(
    "report",
    [
        changed(FOLD, 0, sqnr_db=110.0, differing_logits=75),
        changed(INTEGERS, 1, differing_logits=95),
        changed(INTEGERS, 0, sqnr_db=10.0),
        changed(ONNX, 0, sqnr_db=10.0),
    ],
    ids=["float rounding", "lossy logits", "shown only", "as written"],
)
def test_what_another_machine_does_otherwise_is_not_compared(report):
    assert regressions(document(), report) == ()


@pytest.mark.parametrize(("now", "count"), [(1.4, 0), (1.6, 1)])
def test_a_flip_of_an_image_that_was_surer_counts(now, count):
    before, report = document(), document()
    for side, margin in ((before, 1.0), (report, now)):
        side["rungs"][INTEGERS]["comparisons"][1]["metrics"]["worst_flip_margin"] = margin
    assert len(regressions(before, report)) == count


@pytest.mark.parametrize(("now", "count"), [(0.79, 1), (0.795, 0), (0.81, 0), (None, 1)])
def test_lost_accuracy_counts(now, count):
    report = document()
    report["rungs"][ONNX]["accuracy"] = now
    found = regressions(document(), report)
    assert len(found) == count
    assert all(text.startswith("onnx: accuracy went from 0.8 to ") for text in found)


def test_a_figure_or_a_rung_that_is_missing_now_is_a_regression():
    report = document()
    del report["rungs"][INTEGERS]["comparisons"][1]["metrics"]["sqnr_db"]
    assert len(regressions(document(), report)) == 1
    report = document()
    report["rungs"].pop()
    assert regressions(document(), report) == (
        "onnx: the baseline has this rung, the report has not.",
    )


def test_a_rung_that_passed_before_has_to_pass():
    report = document()
    report["rungs"][INTEGERS]["passed"] = False
    assert regressions(document(), report) == ("integers: it passed before.",)


def test_artifacts_may_have_new_names():
    report = document()
    report["rungs"][ONNX]["artifact"] = "b-int8.onnx"
    assert regressions(document(), report) == ()


def of_two_artifacts(*paths, **metrics):
    """Return a report of several `.onnx`; these are the metrics of the first."""
    report = document()
    rungs = [copy.deepcopy(report["rungs"][ONNX]) | {"artifact": path} for path in paths]
    rungs[0]["comparisons"][1]["metrics"] |= metrics
    return report | {"rungs": [*report["rungs"][:ONNX], *rungs]}


FELL = "differing_logits against integers went from 0 to 7."


@pytest.mark.parametrize(
    ("now", "found"),
    [
        pytest.param(("exports/a.onnx", "exports/b.onnx"), f"onnx (a.onnx): {FELL}", id="the same"),
        pytest.param(("b.onnx", "a.onnx"), f"onnx (b.onnx): {FELL}", id="another order"),
        pytest.param(("x.onnx", "b.onnx"), f"onnx (a.onnx): {FELL}", id="one has a new name"),
        pytest.param(("x.onnx", "y.onnx"), f"onnx (a.onnx): {FELL}", id="both have"),
    ],
)
def test_each_of_several_artifacts_is_held_to_its_own(now, found):
    """The last one of a suffix stood for all."""
    before = of_two_artifacts("exports/a.onnx", "exports/b.onnx")
    assert regressions(before, of_two_artifacts(*now, differing_logits=7)) == (found,)


def test_one_of_several_artifacts_that_is_missing_is_a_regression():
    before, now = of_two_artifacts("a.onnx", "b.onnx"), of_two_artifacts("b.onnx")
    missing = "onnx (a.onnx): the baseline has this rung, the report has not."
    assert regressions(before, now) == (missing,)


@pytest.mark.parametrize(
    ("baseline", "said"),
    [
        ([], "kind None, expected 'mobiledeploy.parity'"),
        ({"kind": "mobiledeploy.bench"}, "kind 'mobiledeploy.bench'"),
        (document(schema=1), "schema 1, expected 2"),
        (document(network="other"), "network 'other'"),
        (document(precision="fp32"), "precision 'fp32'"),
    ],
)
def test_a_report_of_something_else_is_refused(baseline, said):
    expected = {name: document()[name] for name in ("kind", "schema", "network", "precision")}
    require_comparable(document(), expected)
    with pytest.raises(DataError, match=said):
        require_comparable(baseline, expected)


@pytest.mark.parametrize(
    ("baseline", "said"),
    [
        (document(data={"source": "x", "count": 20, "sha256": "d1"}), "other images"),
        (document(data={"source": "x", "count": 19, "sha256": "c0"}), "other images"),
        (document(data=None), "damaged"),
        (document(rungs=[{"name": "fold", "artifact": ""}]), "damaged"),
    ],
)
def test_other_images_and_damaged_baselines_are_refused(baseline, said):
    with pytest.raises(DataError, match=said):
        regressions(baseline, document())
