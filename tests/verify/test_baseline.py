"""The baseline: what got worse is found, and what cannot be compared is refused."""

import copy

import pytest

from mobiledeploy.errors import DataError, GateError
from mobiledeploy.verify.baseline import regressions, require_no_regression


def document(**changes):
    metrics = {"sqnr_db": 20.0, "top1_agreement": 0.97, "differing_logits": 90}
    exact = {"sqnr_db": None, "top1_agreement": 1.0, "differing_logits": 0}

    def rung(name, artifact, reference, figures):
        comparison = {"reference": reference, "images": "data", "metrics": figures}
        return {
            "name": name,
            "artifact": artifact,
            "passed": True,
            "accuracy": 0.8,
            "comparisons": [comparison],
        }

    return copy.deepcopy(
        {
            "schema": 2,
            "kind": "mobiledeploy.parity",
            "network": "net",
            "precision": "int8",
            "data": {"source": "photos", "count": 20, "sha256": "c0"},
            "rungs": [
                rung("integers", "", "float", metrics),
                rung("onnx", "a-int8.onnx", "integers", exact),
            ],
        }
        | changes
    )


def changed(rung, **metrics):
    report = document()
    report["rungs"][rung]["comparisons"][0]["metrics"] |= metrics
    return report


def test_the_same_report_is_no_worse():
    assert regressions(document(), document()) == []
    require_no_regression(document(), document())


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (changed(0, sqnr_db=19.4), "integers: sqnr_db against float went from 20 to 19.4."),
        (changed(0, top1_agreement=0.95), "top1_agreement against float went from 0.97 to 0.95"),
        (changed(1, differing_logits=1), "differing_logits against integers went from 0 to 1."),
        (changed(1, sqnr_db=60.0), "sqnr_db against integers went from inf to 60."),
    ],
)
def test_what_got_worse_is_told_with_both_figures(report, said):
    (found,) = regressions(document(), report)
    assert said in found
    with pytest.raises(GateError, match="Worse than the baseline"):
        require_no_regression(document(), report)


@pytest.mark.parametrize(
    "report", [changed(0, sqnr_db=19.6), changed(0, sqnr_db=25.0), changed(0, top1_agreement=0.965)]
)
def test_better_and_within_the_allowance_is_fine(report):
    assert regressions(document(), report) == []


def test_lost_accuracy_counts():
    report = document()
    report["rungs"][1]["accuracy"] = 0.79
    assert regressions(document(), report) == ["onnx: top-1 fell from 0.800 to 0.790."]


def test_a_figure_or_a_rung_that_is_missing_now_is_a_regression():
    report = document()
    del report["rungs"][0]["comparisons"][0]["metrics"]["sqnr_db"]
    assert len(regressions(document(), report)) == 1
    report = document()
    report["rungs"].pop()
    assert regressions(document(), report) == [
        "onnx: the baseline has this rung, the report has not."
    ]


def test_a_rung_that_passed_before_has_to_pass():
    report = document()
    report["rungs"][0]["passed"] = False
    assert regressions(document(), report) == ["integers: it passed before."]


def test_artifacts_may_have_new_names():
    report = document()
    report["rungs"][1]["artifact"] = "b-int8.onnx"
    assert regressions(document(), report) == []


@pytest.mark.parametrize(
    ("baseline", "said"),
    [
        ({}, "not a parity report"),
        (document(schema=1), "schema 1"),
        (document(network="other"), "network 'other'"),
        (document(precision="fp32"), "precision 'fp32'"),
        (document(data={"source": "x", "count": 20, "sha256": "d1"}), "other images"),
        (document(data={"source": "x", "count": 19, "sha256": "c0"}), "other images"),
    ],
)
def test_what_cannot_be_compared_is_refused(baseline, said):
    with pytest.raises(DataError, match=said):
        regressions(baseline, document())
