"""Baselines: what got worse is found, and what cannot be compared is refused."""

import json
import math
from pathlib import Path

import pytest

from mobiledeploy.errors import DataError
from mobiledeploy.parity.baseline import read_baseline, regressions, require_comparable
from mobiledeploy.parity.report.json_report import to_document
from mobiledeploy.parity.types import Comparison, DataUsed, ParityReport, Rung

SCHEMA_2 = Path(__file__).with_name("baseline-schema-2.json")
FOLD, INTEGERS, ONNX = 0, 1, 2
LOSS = {"sqnr_db": 20.0, "top1_agreement": 0.97, "differing_logits": 90.0}
EQUAL = {"sqnr_db": math.inf, "top1_agreement": 1.0, "differing_logits": 0.0}
ROUNDING = {"sqnr_db": 118.0, "top1_agreement": 1.0, "differing_logits": 70.0}


def rung(name, artifact, *comparisons):
    return Rung(
        name=name,
        title=name,
        artifact=artifact,
        accuracy=0.8,
        comparisons=tuple(
            Comparison(reference=reference, metrics=metrics, limits=limits)
            for reference, metrics, limits in comparisons
        ),
    )


def make_report(**changes):
    report = ParityReport(
        network="net",
        precision="int8",
        data=DataUsed(source="photos", count=20, sha256="c0", labelled=True, calibration=False),
        artifacts=(),
        rungs=(
            rung("fold", "", ("float", ROUNDING, {"min_sqnr_db": 80})),
            rung("integers", "", ("equalize", LOSS, {}), ("float", LOSS, {})),
            rung(
                "onnx",
                "a-int8.onnx",
                ("onnx-unoptimized", LOSS, {}),
                ("integers", EQUAL, {"max_differing_logits": 0}),
            ),
        ),
    )
    return report.model_copy(update=changes)


def with_rung(number, **changes):
    """Return a report with a changed rung."""
    rungs = list(make_report().rungs)
    rungs[number] = rungs[number].model_copy(update=changes)
    return make_report(rungs=tuple(rungs))


def with_metrics(number, against, **metrics):
    """Return a report with changed metrics; None removes one."""
    comparisons = list(make_report().rungs[number].comparisons)
    changed = comparisons[against].metrics | metrics
    kept = {name: value for name, value in changed.items() if value is not None}
    comparisons[against] = comparisons[against].model_copy(update={"metrics": kept})
    return with_rung(number, comparisons=tuple(comparisons))


def test_the_same_report_is_not_worse():
    assert regressions(make_report(), make_report()) == ()


@pytest.mark.parametrize(
    ("report", "text"),
    [
        (
            with_metrics(INTEGERS, 1, sqnr_db=19.4),
            "integers: SQNR against float went from 20 dB to 19.4 dB.",
        ),
        (
            with_metrics(INTEGERS, 1, top1_agreement=0.95),
            "top-1 agreement against float went from 0.97",
        ),
        (
            with_metrics(ONNX, 1, differing_logits=1.0),
            "differing logits against integers went from 0 to 1",
        ),
        (with_metrics(ONNX, 1, sqnr_db=50.0), "SQNR against integers went from 60 dB to 50 dB."),
        (with_metrics(FOLD, 0, sqnr_db=40.0), "fold: SQNR against float went from 60 dB to 40 dB."),
        (
            with_metrics(INTEGERS, 1, sqnr_db=-math.inf),
            "integers: SQNR against float went from 20 dB to -inf dB.",
        ),
    ],
)
def test_what_got_worse_is_reported_with_both_values(report, text):
    (found,) = regressions(make_report(), report)
    assert text in found


@pytest.mark.parametrize(
    "report",
    [
        with_metrics(INTEGERS, 1, sqnr_db=19.6),
        with_metrics(INTEGERS, 1, sqnr_db=25.0),
        with_metrics(INTEGERS, 1, top1_agreement=0.965),
    ],
)
def test_better_and_slightly_worse_values_are_fine(report):
    assert regressions(make_report(), report) == ()


@pytest.mark.parametrize(
    "report",
    [
        with_metrics(FOLD, 0, sqnr_db=110.0, differing_logits=75.0),
        with_metrics(INTEGERS, 1, differing_logits=95.0),
        with_metrics(INTEGERS, 0, sqnr_db=10.0),
        with_metrics(ONNX, 0, sqnr_db=10.0),
    ],
    ids=["float rounding", "lossy logits", "information", "unoptimized"],
)
def test_what_depends_on_the_machine_is_not_compared(report):
    assert regressions(make_report(), report) == ()


@pytest.mark.parametrize(("now", "count"), [(1.4, 0), (1.6, 1)])
def test_a_changed_class_with_a_larger_margin_counts(now, count):
    before = with_metrics(INTEGERS, 1, worst_flip_margin=1.0)
    report = with_metrics(INTEGERS, 1, worst_flip_margin=now)
    assert len(regressions(before, report)) == count


@pytest.mark.parametrize(("now", "count"), [(0.79, 1), (0.795, 0), (0.81, 0), (None, 1)])
def test_lost_accuracy_counts(now, count):
    found = regressions(make_report(), with_rung(ONNX, accuracy=now))
    assert len(found) == count
    assert all(text.startswith("onnx: accuracy went from 0.8 to ") for text in found)


def test_a_missing_metric_or_rung_is_a_regression():
    assert len(regressions(make_report(), with_metrics(INTEGERS, 1, sqnr_db=None))) == 1
    shorter = make_report(rungs=make_report().rungs[:-1])
    assert regressions(make_report(), shorter) == (
        "onnx: the baseline has this rung, the report does not.",
    )


def test_a_rung_that_passed_before_has_to_pass():
    report = with_rung(INTEGERS, failures=("too noisy",))
    assert regressions(make_report(), report) == ("integers: it passed before.",)


def test_artifacts_may_have_new_names():
    assert regressions(make_report(), with_rung(ONNX, artifact="b-int8.onnx")) == ()


def of_two_artifacts(*paths, **metrics):
    """Return a report of several `.onnx`; the metrics are those of the first."""
    first, *others = (
        with_metrics(ONNX, 1, **(metrics if number == 0 else {}))
        .rungs[ONNX]
        .model_copy(update={"artifact": path})
        for number, path in enumerate(paths)
    )
    return make_report(rungs=(*make_report().rungs[:ONNX], first, *others))


FELL = "differing logits against integers went from 0 to 7."


@pytest.mark.parametrize(
    ("now", "found"),
    [
        pytest.param(("exports/a.onnx", "exports/b.onnx"), f"onnx (a.onnx): {FELL}", id="the same"),
        pytest.param(("b.onnx", "a.onnx"), f"onnx (b.onnx): {FELL}", id="another order"),
        pytest.param(("x.onnx", "b.onnx"), f"onnx (a.onnx): {FELL}", id="one has a new name"),
        pytest.param(("x.onnx", "y.onnx"), f"onnx (a.onnx): {FELL}", id="both have"),
    ],
)
def test_each_of_several_artifacts_is_compared_with_itself(now, found):
    before = of_two_artifacts("exports/a.onnx", "exports/b.onnx")
    assert regressions(before, of_two_artifacts(*now, differing_logits=7.0)) == (found,)


def test_one_missing_of_several_artifacts_is_a_regression():
    before, now = of_two_artifacts("a.onnx", "b.onnx"), of_two_artifacts("b.onnx")
    missing = "onnx (a.onnx): the baseline has this rung, the report does not."
    assert regressions(before, now) == (missing,)


@pytest.mark.parametrize("change", [{"sha256": "d1"}, {"count": 19}])
def test_a_baseline_of_other_images_is_refused(change):
    other = make_report(data=make_report().data.model_copy(update=change))
    with pytest.raises(DataError, match="other images"):
        regressions(other, make_report())


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"network": "other"}, "network 'other', expected 'net'"),
        ({"precision": "fp32"}, "precision 'fp32', expected 'int8'"),
        ({"rungs": make_report().rungs[:ONNX]}, "compares no artifact"),
    ],
)
def test_a_baseline_of_something_else_is_refused(changes, text):
    require_comparable(make_report(), network="net", precision="int8")
    with pytest.raises(DataError, match=text):
        require_comparable(make_report(**changes), network="net", precision="int8")


def written(tmp_path, document):
    path = tmp_path / "baseline.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def test_a_report_that_was_written_is_read_back(tmp_path):
    path = written(tmp_path, to_document(make_report()))
    assert read_baseline(path) == make_report()


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ("{", "Could not read"),
        ([], "kind None, expected 'mobiledeploy.parity'"),
        ({"kind": "mobiledeploy.bench"}, "kind 'mobiledeploy.bench'"),
        (to_document(make_report()) | {"schema": 1}, "schema 1, expected 4"),
        (to_document(make_report()) | {"data": None}, "damaged: `data` is null"),
        (to_document(make_report()) | {"rungs": [{"name": "fold"}]}, "`rungs.0.title` is missing"),
    ],
)
def test_what_is_not_a_report_is_refused(tmp_path, document, text):
    with pytest.raises(DataError, match=text):
        read_baseline(written(tmp_path, document))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="Could not read"):
        read_baseline(tmp_path / "nowhere.json")


def test_the_sqnr_of_older_baselines_is_not_compared(tmp_path, monkeypatch):
    """It counted biases as signal; a lower figure today is no loss."""
    document = to_document(make_report())
    for rung in document["rungs"]:
        for comparison in rung["comparisons"]:
            comparison["metrics"]["sqnr_db"] = 99.0
    today = read_baseline(written(tmp_path, document))
    assert any("SQNR" in text for text in regressions(today, make_report()))
    warned = []
    monkeypatch.setattr("mobiledeploy.parity.baseline.warn", warned.append)
    old = read_baseline(written(tmp_path, document | {"schema": 3}))
    assert regressions(old, make_report()) == ()
    assert "SQNR is not compared" in warned[0]
    assert old.layers == make_report().layers


def test_a_baseline_of_schema_2_is_still_read():
    """The file was written by mobiledeploy 0.1 and has a baseline's part of every kind."""
    old = json.loads(SCHEMA_2.read_text())
    assert old["schema"] == 2
    report = read_baseline(SCHEMA_2)
    assert report.network == old["network"]
    assert [rung.name for rung in report.rungs] == [
        "float", "fold", "equalize", "integers", "onnx-unoptimized", "onnx", "pte",
    ]  # fmt: skip
    assert report.rungs[-1].against("onnx").metrics["differing_logits"] == 0
    assert report.rungs[5].against("onnx-unoptimized") is not None
    assert len(report.layers) == len(old["layers"])
    assert report.layers[0].sqnr_drop_db == old["layers"][0]["gained_db"]
    assert report.worst_images[0].top5[0].label == old["worst_images"][0]["top"][0]["label"]
    require_comparable(report, network=old["network"], precision="int8")
    assert regressions(report, report) == ()
